"""PPO that diverges keeps its last sound state and the batch, and is gone on with from there."""

import json

import pytest

from rlhfctl.errors import DivergedError
from rlhfctl.run.files import digest
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.ppo.diverged import diverged_batch_saved
from rlhfctl.stages.ppo.stage import open_trainer

EPISODES, SIZE = 48, 16


class Ruin(NullMonitor):
    """Sets the learning rates to 1e30 after the first rollout."""

    rates: dict[str, float]

    def step(self, done, metrics):
        if done == SIZE:
            self.rates.update(policy=1e30, critic=1e30)


def train(tiny_run, output, monitor, **changes):
    section = {"episodes": EPISODES, "save_rollouts": 1, "eval_rollouts": None} | changes
    ppo = tiny_run.recipe.ppo.model_copy(update=section)
    inputs = {name: tiny_run.stage(name) for name in ("sft", "rm")}
    recipe = tiny_run.recipe.model_copy(update={"ppo": ppo})
    output.mkdir(exist_ok=True)
    opened = open_trainer(recipe, inputs, output, monitor)
    if isinstance(monitor, Ruin):
        monitor.rates = opened.trainer.ppo_step.rates
    with diverged_batch_saved(opened.trainer, opened.context.formatter, output):
        opened.trainer.train()
    return opened


def checkpoints(output):
    return {path.name: digest(path) for path in (output / "checkpoints").iterdir()}


def test_the_sound_state_and_the_batch_are_kept(tiny_run, tmp_path):
    with pytest.raises(DivergedError):
        train(tiny_run, tmp_path, Ruin())
    kept = checkpoints(tmp_path)
    assert list(kept) == ["rollout-00000001"], "the state after the second update is not sound"
    rows = [json.loads(line) for line in (tmp_path / "diverged.jsonl").read_text().splitlines()]
    assert len(rows) == SIZE
    assert all(len(row["log_probs"]) == len(row["response_ids"]) for row in rows)
    assert all(row["prompt"] and "response" in row for row in rows)

    resumed = train(tiny_run, tmp_path, NullMonitor())
    whole = train(tiny_run, tmp_path / "whole", NullMonitor())
    state = [trainer.ppo_step.weights["policy"] for trainer in (resumed.trainer, whole.trainer)]
    assert all(bool((one == other).all()) for one, other in zip(*state, strict=True))


def test_the_last_update_is_checked_without_a_checkpoint_too(tiny_run, tmp_path):
    with pytest.raises(DivergedError, match="after an update"):
        train(tiny_run, tmp_path, Ruin(), save_rollouts=None, episodes=2 * SIZE)


def test_prompts_are_kept_where_sampling_fails(tiny_run, tmp_path):
    with pytest.raises(DivergedError, match="where a response is sampled"):
        train(tiny_run, tmp_path, Ruin(), save_rollouts=None, max_ratio=None)
    rows = [json.loads(line) for line in (tmp_path / "diverged.jsonl").read_text().splitlines()]
    assert ["response" in row for row in rows] == [True] * SIZE + [False] * SIZE
