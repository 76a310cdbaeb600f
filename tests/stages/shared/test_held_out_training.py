"""Held-out evaluations during training, and the best checkpoint."""

import os
import signal
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from rlhfctl.errors import CheckpointError, RecipeError
from rlhfctl.recipe.load import load_recipe
from rlhfctl.run import stop
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.shared.hf_training import newest_checkpoint
from tests.present import present
from tests.stages.shared.small_trainers import trainer_of, weights

BEST: dict[str, Any] = {
    "eval_steps": 2,
    "load_best_model_at_end": True,
    "save_steps": None,
    "save_minutes": None,
}


class Recording(NullMonitor):
    def __init__(self):
        self.evaluated = {}

    def step(self, done, metrics):
        if "eval_loss" in metrics:
            self.evaluated[done] = metrics


class RateFrom(TrainerCallback):  # type: ignore[misc]
    """Trains with a rate that spoils the model from a step onwards."""

    def __init__(self, step, rate=1.0):
        self.step, self.rate = step, rate
        self.saw = {}

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **_):
        for group in optimizer.param_groups:
            group["lr"] = self.rate if state.global_step >= self.step else 1e-4

    def on_step_end(self, args, state, control, model=None, **_):
        self.saw[state.global_step] = {k: p.detach().clone() for k, p in model.named_parameters()}


def checkpoints(folder):
    return sorted(path.name for path in (folder / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("stage", "metrics"),
    [("sft", {"eval_loss", "eval_token_accuracy"}), ("rm", {"eval_loss", "eval_accuracy"})],
)
def test_evaluations_follow_every_few_steps_and_the_last(tmp_path, stage, metrics):
    monitor = Recording()
    trainer_of(stage, tmp_path, monitor=monitor, eval_steps=4, group_by_length=True).train()
    assert list(monitor.evaluated) == [4, 6]
    assert set(monitor.evaluated[6]) == metrics


@pytest.mark.parametrize("stage", ["sft", "rm"])
def test_evaluations_change_no_weight(tmp_path, stage):
    plain = trainer_of(stage, tmp_path / "plain")
    evaluating = trainer_of(stage, tmp_path / "evaluating", eval_steps=1)
    for trainer in (plain, evaluating):
        trainer.train()
    trained = weights(evaluating)
    assert all(torch.equal(trained[name], now) for name, now in weights(plain).items())


@pytest.mark.parametrize(("stage", "lora"), [("sft", False), ("sft", True), ("rm", True)])
def test_the_result_is_the_state_with_the_lowest_loss(tmp_path, stage, lora):
    monitor = Recording()
    trainer = trainer_of(stage, tmp_path, lora=lora, monitor=monitor, **BEST)
    rates = RateFrom(4)
    trainer.add_callback(rates)
    trainer.train()
    losses = {step: metrics["eval_loss"] for step, metrics in monitor.evaluated.items()}
    assert min(losses, key=losses.__getitem__) == 4 == trainer.state.best_global_step
    assert all(torch.equal(rates.saw[4][name], now) for name, now in weights(trainer).items())
    assert any(not torch.equal(rates.saw[6][name], now) for name, now in weights(trainer).items())
    # Only states that were the best when they were evaluated are saved for this.
    assert checkpoints(tmp_path) == ["checkpoint-2", "checkpoint-4"]


def test_the_best_checkpoint_is_kept_beside_the_newest_ones(tmp_path):
    trainer = trainer_of("sft", tmp_path, **BEST | {"eval_steps": 1, "save_steps": 1})
    trainer.add_callback(RateFrom(2))
    trainer.train()
    assert checkpoints(tmp_path) == ["checkpoint-2", "checkpoint-6"]


@pytest.mark.parametrize("stage", ["sft", "rm"])
def test_a_stop_within_an_evaluation_saves_the_state_and_repeats_the_evaluation(tmp_path, stage):
    """The evaluation is the last one, after which nothing is left to train."""
    whole, interrupted, resumed = Recording(), Recording(), Recording()

    class StopInEvaluation(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 6:
                os.kill(os.getpid(), signal.SIGTERM)

    settings = BEST | {"per_device_eval_batch_size": 1}
    reference = trainer_of(stage, tmp_path / "whole", monitor=whole, **settings)
    reference.train()
    trainer = trainer_of(stage, tmp_path / "run", monitor=interrupted, **settings)
    # After the callback that looks for requests at the end of a step.
    trainer.add_callback(StopInEvaluation())
    with (
        stop.handled(),
        pytest.raises(stop.Stopped),
        stop.deferred(lambda _: None),
    ):
        trainer.train()
    assert list(interrupted.evaluated) == [2, 4]
    trainer = trainer_of(stage, tmp_path / "run", monitor=resumed, **settings)
    trainer.train(resume_from_checkpoint=newest_checkpoint(tmp_path / "run", NullMonitor()))
    assert resumed.evaluated == {6: whole.evaluated[6]}
    assert trainer.state.best_global_step == reference.state.best_global_step == 6
    trained = weights(trainer)
    assert all(torch.equal(trained[name], now) for name, now in weights(reference).items())


def test_a_damaged_best_checkpoint_is_refused_when_training_resumes(tmp_path):
    settings = BEST | {"eval_steps": 1, "save_steps": 1, "keep_last": 2}
    trainer = trainer_of("sft", tmp_path, **settings)
    trainer.add_callback(RateFrom(2))
    trainer.train()
    newest = present(newest_checkpoint(tmp_path, NullMonitor()))
    weights_file = tmp_path / "checkpoints" / "checkpoint-2" / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match=r"lowest held-out loss.*model\.safetensors"):
        trainer_of("sft", tmp_path, **settings).train(resume_from_checkpoint=newest)


@pytest.mark.parametrize("section", ["sft", "reward_model"])
def test_the_best_state_needs_evaluations(tmp_path, section):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{section}: {{load_best_model_at_end: true}}\n")
    with pytest.raises(RecipeError, match="eval_steps is null"):
        load_recipe(recipe, [])
