"""`init` writes a recipe that `validate` accepts, and nothing else."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from rlhfctl.cli.init import InitRequest, write_recipe
from rlhfctl.console import Terminal
from rlhfctl.errors import RlhfctlError
from rlhfctl.recipe.load import load_recipe

QUIET = Terminal(quiet=True)
ROWS = {
    "demos": {"prompt": "What is 1 plus 1?", "completion": "Two."},
    "pairs": {"prompt": "What is 1 plus 1?", "chosen": "Two.", "rejected": "Three."},
}


@pytest.fixture
def data(folder):
    for name, row in ROWS.items():
        (folder / f"{name}.jsonl").write_text((json.dumps(row) + "\n") * 3)
    return ["--demonstrations", "demos.jsonl", "--comparisons", "pairs.jsonl"]


def test_without_a_terminal_it_asks_nothing_and_validate_accepts_the_result(rlhfctl, folder):
    done = rlhfctl("init")
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote mine.yaml" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == [
        *("mine.yaml", "recipe.schema.json", "small.yaml")
    ]
    assert load_recipe(folder / "mine.yaml").recipe.name == "mine"
    checked = rlhfctl("validate", "mine.yaml")
    assert (checked.returncode, checked.stdout) == (0, "mine.yaml is valid\n")


def test_data_of_ones_own_replaces_that_of_the_recipe_with_all_its_keys(rlhfctl, folder, data):
    done = rlhfctl("init", "new.yaml", "--from", "qwen2.5-0.5b-hh-rlhf", *data, "--json")
    assert json.loads(done.stdout) == {
        "schema_version": 1,
        "ok": True,
        "errors": [],
        "path": "new.yaml",
        "name": "new",
        "schema_path": "recipe.schema.json",
    }
    recipe = load_recipe(folder / "new.yaml").recipe
    assert recipe.model.name_or_path == "Qwen/Qwen2.5-0.5B"
    assert recipe.data.demonstrations.columns == {}
    assert recipe.data.prompts.source == "Anthropic/hh-rlhf"
    assert rlhfctl("validate", "new.yaml").returncode == 0


def test_another_model_starts_from_the_defaults_and_takes_prompts_of_the_demonstrations(
    folder, data, monkeypatch
):
    monkeypatch.chdir(folder)
    sources = {"demonstrations": data[1], "comparisons": data[3]}
    write_recipe(InitRequest(Path("new.yaml"), model="org/model", **sources), QUIET)
    recipe = load_recipe(folder / "new.yaml").recipe
    assert recipe.data.prompts.source == "demos.jsonl"
    assert recipe.sft.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        (InitRequest(Path("small.yaml")), 2, "the file exists already"),
        (InitRequest(Path("new.yaml"), model="org/model"), 2, "--demonstrations is missing"),
        (InitRequest(Path("new.yaml"), comparisons="none.jsonl"), 3, "there is no such file"),
        (InitRequest(Path("new.yaml"), Path("bse")), 2, "recipe not found"),
        (InitRequest(Path("new.yaml"), name="A b"), 2, "cannot be the name of a run"),
        (InitRequest(Path("latest.yaml")), 2, "cannot be the name of a run"),
        (InitRequest(Path("small.yaml/new.yaml")), 4, "cannot be written"),
    ],
)
def test_a_refusal_writes_nothing(folder, monkeypatch, request_, code, said):
    monkeypatch.chdir(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RlhfctlError, match=said) as caught:
        write_recipe(request_, QUIET)
    assert caught.value.exit_code == code
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_on_a_terminal_it_asks_what_the_options_leave_open(folder, environment, data):
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "rlhfctl", "init", "new.yaml", "--comparisons", "pairs.jsonl"],
        cwd=folder,
        env=environment,
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
    ) as process:
        os.close(slave)
        os.write(master, b"org/model\ndemos.jsonl\n\n")
        assert process.wait(timeout=60) == 0
        shown = os.read(master, 65536).decode()
        os.close(master)
    assert "Base model: a Hub id, a folder, or embedded [embedded]:" in shown
    assert "Comparisons" not in shown
    data_of = load_recipe(folder / "new.yaml").recipe.data
    assert (data_of.demonstrations.source, data_of.prompts.source) == ("demos.jsonl",) * 2
