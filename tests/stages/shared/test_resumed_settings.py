"""A resumed training has the recipe's settings, not those of the checkpoint."""

from typing import Any

import pytest
import torch

from tests.stages.shared.small_trainers import trainer_of, weights

SETTINGS: dict[str, Any] = {"weight_decay": 0.25, "save_steps": 2, "lr_scheduler_type": "linear"}


@pytest.fixture
def interrupted(tmp_path):
    """The fourth of six steps at the rate 1e-3, and the weights after the sixth."""
    trainer = trainer_of("sft", tmp_path, learning_rate=1e-3, **SETTINGS)
    trainer.train()
    return tmp_path / "checkpoints" / "checkpoint-4", weights(trainer)


def resumed(checkpoint, folder, **changes):
    trainer = trainer_of("sft", folder, **(SETTINGS | {"learning_rate": 1e-3} | changes))
    trainer.train(resume_from_checkpoint=str(checkpoint))
    return trainer


def test_equal_settings_give_equal_weights(interrupted, tmp_path):
    checkpoint, whole = interrupted
    again = weights(resumed(checkpoint, tmp_path / "again"))
    assert all(torch.equal(again[name], weight) for name, weight in whole.items())


def test_a_rate_and_a_decay_of_almost_nothing_move_no_weight(interrupted, tmp_path):
    checkpoint, whole = interrupted
    trainer = resumed(checkpoint, tmp_path / "slow", learning_rate=1e-30, weight_decay=0.0)
    slow = weights(trainer)
    from safetensors.torch import load_file

    saved = load_file(checkpoint / "model.safetensors")
    assert all(torch.equal(slow[name], saved[name]) for name in saved)
    assert not all(torch.equal(slow[name], weight) for name, weight in whole.items())


def test_a_twofold_rate_is_twofold_at_each_of_the_remaining_steps(interrupted, tmp_path):
    checkpoint, _ = interrupted
    logged = []
    for factor in (1, 2):
        trainer = resumed(
            checkpoint, tmp_path / str(factor), learning_rate=factor * 1e-3, logging_steps=1
        )
        history = [row for row in trainer.state.log_history if row["step"] == 6]
        logged += [row["learning_rate"] for row in history if "learning_rate" in row]
    assert logged == [pytest.approx(1e-3 / 6), pytest.approx(2e-3 / 6)]


def test_steps_between_saves_are_the_recipes(interrupted, tmp_path):
    checkpoint, _ = interrupted
    resumed(checkpoint, tmp_path / "often", save_steps=1)
    assert (tmp_path / "often" / "checkpoints" / "checkpoint-5").exists()
