"""No optimizer step on numbers that are not finite, and no checkpoint of what led to them."""

import math

import pytest
import torch
from transformers import TrainerCallback

from rlhfctl.errors import DivergedError
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.sft import stage as sft_stage
from rlhfctl.stages.shared.hf_checkpoints import newest_valid
from tests.present import present
from tests.stages.shared.small_trainers import CHANGES, trainer_of, weights


def checkpoints(folder):
    return sorted(path.name for path in (folder / "checkpoints").glob("checkpoint-*"))


class At(TrainerCallback):  # type: ignore[misc]
    """Calls a function once, at an event after a number of optimizer steps."""

    def __init__(self, event, step, act):
        self.step, self.act = step, act
        setattr(self, event, self.call)

    def call(self, args, state, control, **named):
        if state.global_step == self.step:
            self.act(named)


def huge_rate(named):
    for group in named["optimizer"].param_groups:
        group["lr"] = 1e30


@pytest.mark.parametrize("stage", ["sft", "rm"])
def test_a_rate_far_too_high_ends_training_between_two_logs(tmp_path, stage):
    trainer = trainer_of(stage, tmp_path, learning_rate=1e30)
    with pytest.raises(DivergedError, match="at step 2") as caught:
        trainer.train()
    assert "learning_rate" in caught.value.hint
    assert checkpoints(tmp_path) == [], "the state after step 1 has no finite loss"


@pytest.mark.parametrize("stage", ["sft", "rm"])
def test_the_last_state_that_had_a_finite_loss_is_kept(tmp_path, stage):
    trainer = trainer_of(stage, tmp_path)
    trainer.add_callback(At("on_pre_optimizer_step", 3, huge_rate))
    with pytest.raises(DivergedError, match="at step 5"):
        trainer.train()
    assert checkpoints(tmp_path) == ["checkpoint-3"], "4 was made by the huge rate"
    assert present(newest_valid(tmp_path / "checkpoints", NullMonitor())).name == "checkpoint-3"


def test_as_many_checkpoints_are_kept_as_the_recipe_says(tmp_path):
    trainer_of("sft", tmp_path, keep_last=4).train()
    assert checkpoints(tmp_path) == [f"checkpoint-{step}" for step in (3, 4, 5, 6)]


def test_a_gradient_that_is_not_finite_moves_no_weight(tmp_path):
    trainer = trainer_of("sft", tmp_path)
    parameter = next(p for p in trainer.model.parameters() if p.requires_grad)
    before: dict[str, torch.Tensor] = {}

    def break_gradient(_named):
        before.update(weights(trainer))
        parameter.register_hook(lambda gradient: gradient * math.inf)

    trainer.add_callback(At("on_step_begin", 2, break_gradient))
    with pytest.raises(DivergedError, match=r"gradient norm is (nan|inf) at step 3"):
        trainer.train()
    assert all(torch.equal(before[name], now) for name, now in weights(trainer).items())


def test_one_bad_row_of_an_accumulated_batch_is_enough(tmp_path):
    """Its row is in the first forward pass of its step; the last one's loss is finite."""
    trainer = trainer_of("rm", tmp_path, margins=[0.0] * 11 + [math.nan])
    before = weights(trainer)
    with pytest.raises(DivergedError, match="loss is nan"):
        trainer.train()
    moved = any(not torch.equal(before[name], now) for name, now in weights(trainer).items())
    finite = all(bool(torch.isfinite(now).all()) for now in weights(trainer).values())
    assert finite
    assert moved == bool(trainer.state.global_step)


def test_weights_that_are_not_finite_take_no_checkpoints_place(tmp_path):
    trainer = trainer_of("sft", tmp_path)

    def break_weight(_named):
        with torch.no_grad():
            next(p for p in trainer.model.parameters() if p.requires_grad).view(-1)[5] = math.nan

    trainer.add_callback(At("on_optimizer_step", 3, break_weight))
    with pytest.raises(DivergedError, match="is not finite after step 4"):
        trainer.train()
    assert checkpoints(tmp_path) == ["checkpoint-2", "checkpoint-3"]


def test_a_stage_whose_last_step_ruins_it_has_no_result(tiny_run, tmp_path):
    changed = tiny_run.recipe.sft.model_copy(
        update=CHANGES | {"learning_rate": 1e30, "gradient_accumulation_steps": 1_000}
    )
    recipe = tiny_run.recipe.model_copy(update={"sft": changed})
    with pytest.raises(DivergedError, match="held-out loss is nan after training"):
        sft_stage.run(recipe, {}, tmp_path, NullMonitor())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    assert checkpoints(tmp_path) == []
