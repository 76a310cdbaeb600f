"""Peak memory grows by what a process takes."""

import subprocess
import sys

TAKE = """
from rlhfctl.run.memory import peak_memory_bytes
before = peak_memory_bytes()
taken = bytearray(b"x") * (400 * 2**20)
print(before, peak_memory_bytes() - before)
"""


def test_the_peak_is_in_bytes_and_grows_with_what_is_taken():
    held = bytearray(b"x") * (1200 * 2**20)
    printed = subprocess.run(
        [sys.executable, "-c", TAKE], capture_output=True, text=True, check=True
    ).stdout
    before, grown = map(float, printed.split())
    assert held
    assert 2**22 < before < 2**30, "what the parent holds does not count"
    assert 350 * 2**20 < grown < 500 * 2**20
