"""`rlhfctl fetch` against a Hub on this machine, and what is then read without it."""

import json
import subprocess
import sys

import pytest

from rlhfctl.downloads.needs import needed_repositories
from rlhfctl.recipe.schema import Recipe
from tests.hub_server import COMMIT

RECIPE = """name: small
model: {name_or_path: org/tiny}
data:
  demonstrations: {source: embedded}
  comparisons: {source: org/pairs}
  prompts: {source: org/pairs, split: test}
"""
READ = """
import torch
from pathlib import Path
from rlhfctl.data.hub import read_hub
from rlhfctl.models.base import load_causal_lm
from rlhfctl.models.finite_weights import _files
from rlhfctl.models.tokenizer import load_tokenizer
from rlhfctl.recipe.schema import ModelSection
from rlhfctl.pipeline.repositories import read_repositories
from rlhfctl.recipe.load import load_recipe
from rlhfctl.stage_table import REWARD_MODEL
section = ModelSection(name_or_path="org/tiny")
def repositories():
    recipe = load_recipe(Path("small.yaml"), []).recipe
    return sorted(read_repositories(recipe, REWARD_MODEL).items())
def logits():
    model, ids = load_causal_lm(section), load_tokenizer(section)("What is 1 plus 1?")
    return model(torch.tensor([ids["input_ids"]])).logits.double().sum().item()
"""


@pytest.fixture
def fetch(hub_environment, tmp_path):
    """Run ``rlhfctl fetch`` with a recipe; the cache is the session's."""
    (tmp_path / "small.yaml").write_text(RECIPE)

    def run(*options, **variables):
        return subprocess.run(
            [sys.executable, "-m", "rlhfctl", "fetch", "small.yaml", *options],
            cwd=tmp_path,
            env=hub_environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_what_is_fetched_is_stated_before_and_read_without_the_hub(
    fetch, hub, outcomes, hub_environment, tmp_path
):
    home = str(tmp_path / "home")
    planned = fetch("--dry-run", HF_HOME=home)
    assert planned.returncode == 0, planned.stderr
    assert "org/tiny    base model  5 MB         5 MB" in planned.stdout
    assert not list((tmp_path / "home").glob("hub/models--org--tiny/blobs/*"))
    done = fetch("--json", HF_HOME=home)
    assert done.returncode == 0, done.stderr
    model, pairs = json.loads(done.stdout)["repositories"]
    assert (model["commit"], model["role"]) == (COMMIT, "base model")
    folder = hub.root / "models" / "org" / "tiny"
    assert model["missing_bytes"] == sum((folder / name).stat().st_size for name in model["files"])
    assert {"model.safetensors", "tokenizer.json"} <= set(model["files"])
    assert not {"pytorch_model.bin", "consolidated.safetensors"} & set(model["files"])
    assert (pairs["files"], pairs["splits"]) == (["test.jsonl", "train.jsonl"], ["train", "test"])
    assert "data.demonstrations.source: embedded is on this machine" in done.stderr
    again = fetch(HF_HOME=home)
    assert "all is in the cache; next: rlhfctl run small.yaml --offline" in again.stdout
    # Another Hub does not answer, and none is asked.
    offline = {"HF_HOME": home, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    calls = [
        "logits()",
        "[path.name for path in _files('org/tiny', None)]",
        "read_hub('org/pairs', None, 'test', None).rows[7]['prompt']",
        "read_hub('org/pairs', 'other', 'test', None)",
        f"len(read_hub('org/pairs', None, 'train', {COMMIT!r}).rows)",
        f"read_hub('org/pairs', None, 'train', {'f' * 40!r})",
        "repositories()",
    ]
    read = outcomes(READ, calls, **offline)
    assert float(read[0][1]) == pytest.approx(logits_of_the_embedded_model(), abs=1e-6)
    assert read[1][1] == "['model.safetensors']"
    assert read[2][1] == "What is 7 plus 1?"
    assert read[3][0] == "EnvironmentFault"
    assert "not in the cache" in read[3][1]
    assert read[4] == ["", "40"]
    assert read[5][0] == "EnvironmentFault"
    assert f"the cache has commit {COMMIT}" in read[5][1]
    keys = ("data.comparisons.source", "data.prompts.source", "model.name_or_path")
    names = ("org/pairs", "org/pairs", "org/tiny")
    assert read[6][1] == str(
        [(key, f"{name}@{COMMIT}") for key, name in zip(keys, names, strict=True)]
    )
    refused = fetch("--json", **offline)
    assert refused.returncode == 4
    assert "org/tiny, org/pairs" in json.loads(refused.stdout)["errors"][0]["message"]


def logits_of_the_embedded_model():
    import torch

    from rlhfctl.models.base import load_causal_lm
    from rlhfctl.models.tokenizer import load_tokenizer
    from rlhfctl.recipe.schema import ModelSection

    section = ModelSection()
    ids = load_tokenizer(section)("What is 1 plus 1?")["input_ids"]
    return load_causal_lm(section)(torch.tensor([ids])).logits.double().sum().item()


def test_a_recipe_of_local_inputs_needs_nothing(fetch, tmp_path):
    (tmp_path / "small.yaml").write_text("name: small\n")
    done = fetch(HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stdout) == (0, "small.yaml needs nothing from the Hub\n")


MEASURE = """
from rlhfctl.downloads.needs import Repository
from rlhfctl.downloads.sizes import measure
def model(name, role="base model", revision=None):
    return measure(Repository(role, name, revision, ("key",)))
def data(name, config=None, revision=None):
    return measure(Repository("data set", name, revision, ("key",), config, ("train",)))
"""


def test_what_cannot_be_downloaded_is_refused_with_the_reason(outcomes):
    cases = {
        "model('org/gated')": ("NoAccessError", "Accept its licence at http://127.0.0.1"),
        "model('org/private')": ("NoAccessError", "is not on the Hub, or is private"),
        "model('org/none')": ("NoAccessError", "key: org/none: is not on the Hub"),
        "model('org/tiny', revision='v9')": ("EnvironmentFault", "has no revision v9"),
        "model('a b')": ("EnvironmentFault", "is neither a folder that exists nor"),
        "model('org/pickled')": ("UnsafeError", "has no safetensors weights"),
        "model('org/pickled', 'reward model')": ("UnsafeError", "has no safetensors weights"),
        "data('org/gated')": ("NoAccessError", "/datasets/org/gated, then run"),
        "data('org/pairs', 'nope')": ("DataError", "no configuration nope"),
        "data('org/script')": ("UnsafeError", "loading script"),
        "data('org/bare')": ("DataError", "No (supported) data files found"),
        "data('org/configs', 'one').total_bytes > 0": ("", "True"),
    }
    for call, found in zip(cases, outcomes(MEASURE, list(cases)), strict=True):
        assert found[0] == cases[call][0], (call, found)
        assert cases[call][1] in found[1], (call, found)


def test_the_repositories_of_a_recipe_are_named_once_with_all_their_keys():
    recipe = Recipe.model_validate(
        {
            "model": {"name_or_path": "org/base", "revision": "v1"},
            "ppo": {"reward_sources": [{"source": "rm"}, {"source": "hub:org/scores"}]},
            "evaluation": {"judge_rm": "hub:org/judge"},
            "data": {
                "comparisons": {"source": "org/pairs"},
                "prompts": {
                    "sources": [{"source": "embedded"}, {"source": "org/pairs", "split": "test"}]
                },
            },
        }
    )
    found = {one.id: (one.role, one.revision, one.keys) for one in needed_repositories(recipe)}
    assert found == {
        "org/base": ("base model", "v1", ("model.name_or_path",)),
        "org/scores": ("reward model", None, ("ppo.reward_sources[1].source",)),
        "org/judge": ("reward model", None, ("evaluation.judge_rm",)),
        "org/pairs": (
            "data set",
            None,
            ("data.comparisons.source", "data.prompts.sources.1.source"),
        ),
    }
