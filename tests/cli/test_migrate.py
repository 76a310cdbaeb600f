"""`migrate` writes a recipe that `validate` accepts, and accounts for every key."""

import json
import sys
from pathlib import Path

import pytest

from rlhfctl.cli.migrate import migrate_files
from rlhfctl.console import Terminal
from rlhfctl.recipe.load import load_recipe
from tests.migration.examples import AXOLOTL, write_llamafactory


def test_three_files_of_llamafactory_become_a_valid_recipe(rlhfctl, folder):
    files = [path.name for path in write_llamafactory(folder, "sft", "reward", "ppo")]
    done = rlhfctl("migrate", "--from", "llamafactory", *files, "-o", "mine.yaml")
    assert done.returncode == 0
    assert done.stdout == "wrote mine.yaml; next: rlhfctl validate mine.yaml\n"
    assert "top_p: 0.9: PPO samples from the whole distribution" in " ".join(done.stderr.split())
    checked = rlhfctl("validate", "mine.yaml")
    assert checked.returncode == 0
    assert "data/dpo_en_demo.json: conversations, 2 rows of form sharegpt" in checked.stderr
    text = (folder / "mine.yaml").read_text()
    head = text.partition("\nname:")[0]
    for key in ("ddp_timeout", "plot_loss", "trust_remote_code", "top_p", "max_samples"):
        assert key in head
    assert max(map(len, head.splitlines())) <= 100


@pytest.mark.parametrize("name", AXOLOTL)
def test_a_file_of_axolotl_is_printed_as_a_valid_recipe(rlhfctl, folder, name):
    (folder / "file.yml").write_text(AXOLOTL[name])
    done = rlhfctl("migrate", "file.yml")
    assert done.returncode == 0
    (folder / "printed.yaml").write_text(done.stdout)
    assert load_recipe(folder / "printed.yaml").recipe.name == "file"
    assert rlhfctl("validate", "printed.yaml").returncode == 0


def test_json_has_the_recipe_and_what_became_of_each_key(rlhfctl, folder):
    (folder / "file.yml").write_text(AXOLOTL["qlora"] + "comet_api_key: hunter2\n")
    done = rlhfctl("migrate", "file.yml", "--json")
    value = json.loads(done.stdout)
    assert (value["ok"], value["tool"], value["path"]) == (True, "axolotl", None)
    assert value["files"] == [{"path": "file.yml", "stage": "sft"}]
    keys = {one["key"]: one for one in value["keys"]}
    assert keys["lora_r"]["recipe_keys"] == ["lora.r"]
    assert keys["comet_api_key"]["became"] == "left_out"
    assert value["missing_data"] == ["comparisons"]
    assert "hunter2" not in done.stdout + done.stderr


def test_a_refusal_writes_nothing(rlhfctl, folder):
    (folder / "file.yml").write_text(AXOLOTL["qlora"] + "rl: dpo\n")
    done = rlhfctl("migrate", "file.yml", "-o", "mine.yaml")
    assert done.returncode == 2
    assert "file.yml: rl: dpo is not migrated" in done.stderr
    assert not (folder / "mine.yaml").exists()
    done = rlhfctl("migrate", "none.yml")
    assert (done.returncode, "there is no such file" in done.stderr) == (2, True)
    done = rlhfctl("migrate", "file.yml", "-o", "small.yaml")
    assert (done.returncode, "the file exists already" in done.stderr) == (2, True)


def test_no_slow_library_is_loaded(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "file.yml").write_text(AXOLOTL["qlora"])
    before = set(sys.modules)
    migrate_files([Path("file.yml")], None, Path("mine.yaml"), Terminal(quiet=True))
    assert not {"torch", "transformers", "datasets"} & (set(sys.modules) - before)
