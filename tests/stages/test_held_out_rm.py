"""The reward model that PPO never sees: its own prompts, its own seed, the same care."""

import json

import pytest
from toy import Cut, Dying

from rlhfctl.data.sources import load_comparisons
from rlhfctl.data.split import prompt_key
from rlhfctl.errors import CheckpointError
from rlhfctl.models.heads import ScoreNormalization
from rlhfctl.run.monitor import QuietMonitor
from rlhfctl.stages import reward
from rlhfctl.stages.held_out_rm import JUDGE, SEED_OFFSET, judge_reward_model
from rlhfctl.stages.reward import _parts

ADAPTER = "adapter_model.safetensors"


class Keeping(QuietMonitor):
    def __init__(self):
        self.steps = []

    def step(self, done, figures):
        self.steps.append((done, sorted(figures)))


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
    outcome = reward.run(recipe, {"sft": tiny_run.stage("sft")}, output, monitor or QuietMonitor())
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
    assert not (tiny_run.stage("rm") / JUDGE).exists()


def test_it_is_a_checkpoint_of_its_own_with_figures_of_its_own(whole):
    output, metrics, _ = whole
    judge = json.loads((output / JUDGE / "figures.json").read_text())
    assert metrics[JUDGE] == judge
    assert 0 < judge["train_rows"] < metrics["train_rows"]
    assert judge["pairs"] == metrics["pairs"]
    assert judge["score_mean"] != metrics["score_mean"]
    scale = ScoreNormalization.load(output / JUDGE)
    assert (scale.mean, scale.deviation) == (judge["score_mean"], judge["score_std"])
    assert (output / JUDGE / ADAPTER).read_bytes() != (output / ADAPTER).read_bytes()


def test_its_training_is_told_after_the_main_models_under_other_names(whole):
    _, metrics, monitor = whole
    assert [done for done, _ in monitor.steps] == list(
        range(1, metrics["steps"] + metrics[JUDGE]["steps"] + 1)
    )
    named = [all(name.startswith("judge_") for name in names) for _, names in monitor.steps]
    assert named == [False] * metrics["steps"] + [True] * metrics[JUDGE]["steps"]


def test_cut_in_its_training_and_resumed_equals_uninterrupted(tiny_run, whole, tmp_path):
    output, metrics, _ = whole
    with pytest.raises(Cut):
        made(tiny_run, tmp_path / "cut", Dying(after=metrics["steps"] + 1))
    again = Keeping()
    made(tiny_run, tmp_path / "cut", again)
    for name in (ADAPTER, f"{JUDGE}/{ADAPTER}"):
        assert (tmp_path / "cut" / name).read_bytes() == (output / name).read_bytes(), name
    assert all(names[0].startswith("judge_") for _, names in again.steps), "the first was kept"


def test_the_recipes_own_comes_before_the_runs(tiny_run, whole, tmp_path):
    output, _, _ = whole
    recipe = tiny_run.recipe
    assert judge_reward_model(recipe, {"rm": output}) == output / JUDGE
    assert judge_reward_model(recipe, {"rm": tiny_run.stage("rm")}) is None

    def naming(path):
        section = recipe.evaluation.model_copy(update={"judge_rm": str(path)})
        return recipe.model_copy(update={"evaluation": section})

    assert judge_reward_model(naming(tmp_path), {"rm": output}) == tmp_path
    with pytest.raises(CheckpointError, match="judge"):
        judge_reward_model(naming(tmp_path / "absent"), {"rm": output})
