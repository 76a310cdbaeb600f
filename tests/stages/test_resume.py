"""A stage that was cut short and started again ends with the same weights as one that was not."""

import importlib
import os
import signal

import pytest

from rlhfctl.run import stop
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.run.stop import Stopped
from rlhfctl.stage_table import stage_named
from tests.ppo.toy import Cut, Dying

SAVING = {
    "sft": {"save_steps": 1, "logging_steps": 1},
    "rm": {"save_steps": 1, "logging_steps": 1, "per_device_train_batch_size": 16},
    "ppo": {"save_rollouts": 1, "episodes": 64},
    "dpo": {"save_steps": 1, "logging_steps": 1, "per_device_train_batch_size": 16},
}
SECTIONS = {"sft": "sft", "rm": "reward_model", "ppo": "ppo", "dpo": "dpo"}


class Signalling(NullMonitor):
    """Sends the process a signal after some steps."""

    def __init__(self, number, after):
        self.number, self.left = number, after
        self.notes = []

    def step(self, done, metrics):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)

    def note(self, message):
        self.notes.append(message)


def run(tiny_run, stage, output, monitor=None, **settings):
    section = SECTIONS[stage]
    changed = getattr(tiny_run.recipe, section).model_copy(update=SAVING[stage] | settings)
    recipe = tiny_run.recipe.model_copy(update={section: changed})
    inputs = {name: tiny_run.stage(name) for name in stage_named(stage).accepts}
    output.mkdir(exist_ok=True)
    module = importlib.import_module(f"rlhfctl.stages.{stage_named(stage).module}.stage")
    metrics = module.run(recipe, inputs, output, monitor or NullMonitor()).metrics
    timed = ("_seconds", "per_second", "_bytes")
    metrics.update({key: None for key in metrics if key.endswith(timed)})
    metrics.pop("last_rollout", None)
    return (output / "adapter_model.safetensors").read_bytes(), metrics


def stopped(tiny_run, stage, output, number=signal.SIGTERM, after=2):
    """Run a stage that receives a signal after some logged steps; return what it noted."""
    monitor = Signalling(number, after)
    key = {"ppo": "save_rollouts"}.get(stage, "save_steps")
    with pytest.raises(Stopped), stop.handled():
        run(tiny_run, stage, output, monitor, **{key: None})
    return [note for note in monitor.notes if "saved a checkpoint" in note]


def checkpoints(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.mark.parametrize("stage", ["sft", "rm", "ppo", "dpo"])
def test_cut_and_resumed_equals_uninterrupted(tiny_run, tmp_path, stage):
    """Killed after a checkpoint, resumed, stopped by a signal, and resumed to the end."""
    whole, folder = run(tiny_run, stage, tmp_path / "whole"), tmp_path / "resumed"
    with pytest.raises(Cut):
        run(tiny_run, stage, folder, Dying(after=2))
    first = checkpoints(folder)
    assert first, "the cut came after a checkpoint"
    (note,) = stopped(tiny_run, stage, folder, after=1)
    assert "step 4" in note or stage == "ppo"
    assert checkpoints(folder) > first
    assert run(tiny_run, stage, folder) == whole
    if stage == "ppo":
        critics = (
            (path / "critic" / "adapter_model.safetensors").read_bytes()
            for path in (folder, tmp_path / "whole")
        )
        assert next(critics) == next(critics)
