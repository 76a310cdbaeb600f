"""Each stage gets the results it needs, from the run or from elsewhere, and no damaged ones."""

import pytest

from rlhfctl.errors import CheckpointError
from rlhfctl.run.manifest import Manifest
from rlhfctl.run.sealed import seal
from tests.pipeline.small_stages import ALL


def test_each_stage_gets_the_results_of_those_before_it(go, stages, directory):
    results = go(ALL)
    assert stages.ran == ALL
    at = directory.stage
    assert stages.inputs == {
        "sft": {},
        "rm": {"sft": at("sft")},
        "ppo": {"sft": at("sft"), "rm": at("rm")},
        "eval": {"sft": at("sft"), "rm": at("rm"), "ppo": at("ppo")},
    }
    assert [(result.stage, result.status) for result in results] == [(n, "done") for n in ALL]


@pytest.mark.parametrize(
    ("stage", "missing", "command"),
    [("rm", "sft", "rlhfctl sft"), ("ppo", "sft", "rlhfctl sft"), ("eval", "sft", "rlhfctl sft")],
)
def test_a_missing_input_names_the_command_that_makes_it(go, stages, stage, missing, command):
    with pytest.raises(CheckpointError) as caught:
        go([stage])
    assert f"{command} --run one" in str(caught.value)
    assert stages.ran == []


def test_a_missing_reward_model_names_train_rm(go):
    go(["sft"])
    with pytest.raises(CheckpointError, match="rlhfctl train-rm --run one"):
        go(["ppo"])


def test_a_damaged_input_is_refused(go, directory, stages):
    go(["sft"])
    (directory.stage("sft") / "weights").write_text("damaged")
    with pytest.raises(
        CheckpointError, match="rm needs an SFT checkpoint, but output sft was modified"
    ):
        go(["rm"])
    assert stages.ran == []


def test_eval_runs_on_sft_alone_without_a_reward_model_and_policy(go, stages):
    go(["sft", "eval"])
    assert set(stages.inputs["eval"]) == {"sft"}


def test_an_outdated_input_raises_a_warning(go, listener):
    go(["sft", "rm"])
    go(["rm"], {"sft.learning_rate": 0.5})
    assert (
        "sft is out of date (sft.learning_rate changed from 0.0002 to 0.5)" in listener.warnings[0]
    )
    go(["sft"], {"sft.learning_rate": 0.5})
    go(["ppo"], {"sft.learning_rate": 0.5})
    assert "rm is out of date (made from an earlier sft)" in listener.warnings[0]


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "weights").write_text("outside")
    (folder / "config.json").write_text("{}")
    return folder


def test_checkpoints_named_by_the_recipe_replace_the_runs_own(go, stages, outside, directory):
    go(["ppo"], {"ppo.sft": str(outside), "ppo.rm": str(outside)})
    assert stages.inputs["ppo"] == {"sft": outside, "rm": outside}
    inputs = Manifest.load(directory.manifest).stages["ppo"].inputs
    assert inputs["sft"].path == str(outside)
    go(["eval"], {"ppo.sft": str(outside), "ppo.rm": str(outside)})
    assert stages.inputs["eval"]["sft"] == outside
    assert stages.inputs["eval"]["ppo"] == directory.stage("ppo")


def test_a_changed_external_checkpoint_reruns_the_stage(go, stages, outside):
    changes = {"reward_model.sft": str(outside)}
    go(["rm"], changes)
    (outside / "weights").write_text("changed")
    go(["rm"], changes)
    assert stages.ran == ["rm"]


def test_a_missing_external_checkpoint_is_refused(go, tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        go(["rm"], {"reward_model.sft": str(tmp_path / "nowhere")})


def test_a_folder_without_a_model_is_refused_before_it_is_read(go, tmp_path):
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(CheckpointError, match="the folder has no config"):
        go(["rm"], {"reward_model.sft": str(tmp_path)})


def test_a_result_of_another_run_that_was_changed_is_refused(go, stages, directory):
    go(["sft"])
    (directory.stage("sft") / "weights").write_text("changed")
    with pytest.raises(CheckpointError, match="cannot use an SFT checkpoint: output sft was mod"):
        go(["rm"], {"reward_model.sft": str(directory.stage("sft"))})
    assert stages.ran == []


def test_a_trainers_checkpoint_that_was_changed_is_refused(go, tmp_path):
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    (checkpoint / "weights").write_text("1")
    (checkpoint / "config.json").write_text("{}")
    seal(checkpoint, processes=1)
    go(["rm"], {"reward_model.sft": str(checkpoint)})
    (checkpoint / "weights").write_text("2")
    with pytest.raises(CheckpointError, match="weights was changed"):
        go(["rm"], {"reward_model.sft": str(checkpoint)})
