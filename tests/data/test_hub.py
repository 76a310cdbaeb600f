"""Data sets of a Hub on this machine: what is read, and the reason where nothing is."""

READ = """
import os
from rlhfctl.data.hub import read_hub
def with_token(source):
    os.environ["HF_TOKEN"] = "hf_valid"
    return len(read_hub(source, None, "train", None).rows)
"""


def test_rows_or_the_reason_why_there_are_none(outcomes):
    cases = {
        "read_hub('org/pairs', None, 'train', None).rows[1]['prompt']": ("", "What is 1 plus 1?"),
        "read_hub('org/configs', 'one', 'train', 'main').place(0)": ("", "org/configs:row 1"),
        "read_hub('org/pairs', None, 'nope', None)": ("DataError", "no split nope"),
        "read_hub('org/pairs', 'nope', 'train', None)": ("DataError", "no configuration nope"),
        "read_hub('org/configs', None, 'train', None)": ("DataError", "no configuration None"),
        "read_hub('org/pairs', None, 'train', 'v9')": ("EnvironmentFault", "has no revision v9"),
        "read_hub('org/none', None, 'train', None)": ("EnvironmentFault", "no such data set"),
        "read_hub('org/private', None, 'train', None)": ("EnvironmentFault", "no such data set"),
        "read_hub('org/gated', None, 'train', None)": ("EnvironmentFault", "is gated"),
        "read_hub('org/script', None, 'train', None)": ("UnsafeError", "loading script"),
        "read_hub('org/broken', None, 'train', None)": ("DataError", "org/broken: cannot be read"),
        "read_hub('org/bare', None, 'train', None)": ("DataError", "No (supported) data files"),
        "read_hub('no id', None, 'train', None)": ("DataError", "neither a file that exists"),
        "with_token('org/private')": ("", "4"),
    }
    for call, found in zip(cases, outcomes(READ, list(cases)), strict=True):
        assert found[0] == cases[call][0], (call, found)
        assert cases[call][1] in found[1], (call, found)
