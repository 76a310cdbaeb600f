"""The checkpoints of a run, as its manifest records them."""

import shutil

import pytest
import yaml

from rlhfctl.errors import CheckpointError
from rlhfctl.pipeline.finished import FinishedRun


@pytest.fixture
def run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "small")


def test_the_stages_with_a_model_are_in_the_order_of_a_run(run):
    finished = FinishedRun.open(run)
    assert finished.stages == ["sft", "rm", "ppo"]
    assert finished.checkpoint("rm") == run / "rm"


def test_a_checkpoint_that_was_changed_since_is_refused(run):
    with (run / "ppo" / "adapter_model.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(CheckpointError, match=r"not the one that was recorded.*ppo was modified"):
        FinishedRun.open(run).checkpoint("ppo")
    assert FinishedRun.open(run).checkpoint("sft").is_dir()


def test_an_unfinished_stage_is_refused_with_the_finished_ones(run):
    finished = FinishedRun.open(run)
    rest = {name: record for name, record in finished.manifest.stages.items() if name != "ppo"}
    without = FinishedRun(finished.directory, finished.recipe, type(finished.manifest)(rest))
    with pytest.raises(
        CheckpointError, match="no PPO policy; finished stages with a model: sft, rm"
    ):
        without.checkpoint("ppo")


def test_a_best_checkpoint_is_refused_where_none_was_saved(run):
    with pytest.raises(CheckpointError, match="ppo has no best checkpoint"):
        FinishedRun.open(run).checkpoint("ppo", best=True)


def test_a_stage_is_loaded_by_its_record_where_the_recipe_has_changed_since(run):
    values = yaml.safe_load((run / "recipe.yaml").read_text())
    base = values["model"]["name_or_path"]
    values["model"]["name_or_path"] = "embedded"
    values["lora"]["r"] = 64
    values["generation"]["max_new_tokens"] = 5
    (run / "recipe.yaml").write_text(yaml.safe_dump(values))
    recipe = FinishedRun.open(run).recipe_of("ppo")
    assert recipe.lora is not None
    assert (recipe.model.name_or_path, recipe.lora.r) == (base, 4)
    assert recipe.generation.max_new_tokens == 8, "PPO's record has it"
    assert FinishedRun.open(run).recipe_of("sft").generation.max_new_tokens == 5
