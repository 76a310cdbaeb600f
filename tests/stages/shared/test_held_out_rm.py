"""The reward model that PPO never sees: its own prompts, its own seed, the same care."""

import json

import pytest

from rlhfctl.data.sources import load_comparisons
from rlhfctl.data.split import prompt_key
from rlhfctl.errors import CheckpointError
from rlhfctl.models.heads import ScoreNormalization
from rlhfctl.run.directory import HELD_OUT_RM_FOLDER
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.reward_model import stage as reward_model
from rlhfctl.stages.reward_model.stage import _parts
from rlhfctl.stages.shared.held_out_rm import SEED_OFFSET, held_out_rm_folder
from tests.ppo.toy import Cut, Dying

ADAPTER = "adapter_model.safetensors"


class Keeping(NullMonitor):
    def __init__(self):
        self.steps = []

    def step(self, done, metrics):
        self.steps.append((done, sorted(metrics)))


def with_judge(recipe, **changed):
    section = recipe.reward_model.model_copy(
        update={
            "judge_share": 0.3,
            "per_device_train_batch_size": 16,
            "save_steps": 1,
            "logging_steps": 1,
            **changed,
        }
    )
    return recipe.model_copy(update={"reward_model": section})


def made(tiny_run, output, monitor=None):
    output.mkdir(exist_ok=True)
    recipe = with_judge(tiny_run.recipe)
    outcome = reward_model.run(
        recipe, {"sft": tiny_run.stage("sft")}, output, monitor or NullMonitor()
    )
    return outcome.metrics


@pytest.fixture(scope="module")
def whole(tiny_run, tmp_path_factory):
    output, monitor = tmp_path_factory.mktemp("judged"), Keeping()
    return output, made(tiny_run, output, monitor), monitor


def keys(rows):
    return {prompt_key(prompt) for prompt in rows["prompt"]}


def test_the_two_models_share_no_prompt_and_neither_meets_a_held_out_one(tiny_run, tmp_path):
    recipe = with_judge(tiny_run.recipe)
    rows = load_comparisons(recipe)
    main, judge = _parts(recipe, rows.train, tmp_path)
    assert not keys(main.rows) & keys(judge.rows)
    assert not (keys(main.rows) | keys(judge.rows)) & keys(rows.held_out)
    assert len(main.rows) + len(judge.rows) == len(rows.train)
    assert len(judge.rows) > 0
    assert judge.seed == main.seed + SEED_OFFSET


def test_without_a_share_there_is_one_model_on_every_row(tiny_run, tmp_path):
    rows = load_comparisons(tiny_run.recipe)
    (only,) = _parts(tiny_run.recipe, rows.train, tmp_path)
    assert only.rows is rows.train
    assert not (tiny_run.stage("rm") / HELD_OUT_RM_FOLDER).exists()


def test_it_is_a_checkpoint_of_its_own_with_metrics_of_its_own(whole):
    output, metrics, _ = whole
    judge = json.loads((output / HELD_OUT_RM_FOLDER / "metrics.json").read_text())
    assert metrics[HELD_OUT_RM_FOLDER] == judge
    assert 0 < judge["train_rows"] < metrics["train_rows"]
    assert judge["pairs"] == metrics["pairs"]
    assert judge["score_mean"] != metrics["score_mean"]
    scale = ScoreNormalization.load(output / HELD_OUT_RM_FOLDER)
    assert (scale.mean, scale.deviation) == (judge["score_mean"], judge["score_std"])
    assert (output / HELD_OUT_RM_FOLDER / ADAPTER).read_bytes() != (output / ADAPTER).read_bytes()


def test_its_training_is_told_after_the_main_models_under_other_names(whole):
    _, metrics, monitor = whole
    assert [done for done, _ in monitor.steps] == list(
        range(1, metrics["steps"] + metrics[HELD_OUT_RM_FOLDER]["steps"] + 1)
    )
    named = [all(name.startswith("judge_") for name in names) for _, names in monitor.steps]
    assert named == [False] * metrics["steps"] + [True] * metrics[HELD_OUT_RM_FOLDER]["steps"]


def test_cut_in_its_training_and_resumed_equals_uninterrupted(tiny_run, whole, tmp_path):
    output, metrics, _ = whole
    with pytest.raises(Cut):
        made(tiny_run, tmp_path / "cut", Dying(after=metrics["steps"] + 1))
    again = Keeping()
    made(tiny_run, tmp_path / "cut", again)
    for name in (ADAPTER, f"{HELD_OUT_RM_FOLDER}/{ADAPTER}"):
        assert (tmp_path / "cut" / name).read_bytes() == (output / name).read_bytes(), name
    assert all(names[0].startswith("judge_") for _, names in again.steps), "the first was kept"


def test_the_recipes_own_comes_before_the_runs(tiny_run, whole, tmp_path):
    output, _, _ = whole
    recipe = tiny_run.recipe
    assert held_out_rm_folder(recipe, {"rm": output}) == output / HELD_OUT_RM_FOLDER
    assert held_out_rm_folder(recipe, {"rm": tiny_run.stage("rm")}) is None

    def naming(path):
        section = recipe.evaluation.model_copy(update={"judge_rm": str(path)})
        return recipe.model_copy(update={"evaluation": section})

    (tmp_path / "score_normalization.json").write_text("{}")
    assert held_out_rm_folder(naming(tmp_path), {"rm": output}) == tmp_path
    with pytest.raises(CheckpointError, match="judge"):
        held_out_rm_folder(naming(tmp_path / "absent"), {"rm": output})
