"""`auto_batch` in SFT and the reward model: smaller passes, the same training."""

from typing import Any

import pytest
import torch

from rlhfctl.ppo.pass_size import PassSize
from rlhfctl.stages.shared.auto_batch import LongestBatchFirst
from tests.stages.shared.small_trainers import trainer_of, weights

BATCH: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "logging_steps": 1,
    # Linear in the gradients; AdamW's first steps are their signs, which rounding may turn.
    "optim": "sgd",
    "learning_rate": 0.05,
}


def automatic(trainer, said):
    trainer.pass_size = PassSize(4, automatic=True, say=said.append)
    trainer.add_callback(LongestBatchFirst(trainer))
    return trainer


def cramp(trainer, rows):
    """Leave memory for a number of rows in a forward pass of the model."""

    def room(_module, _arguments, named):
        if len(named["input_ids"]) > rows:
            torch.empty(2**60, dtype=torch.uint8)

    trainer.model.register_forward_pre_hook(room, with_kwargs=True)
    return trainer


def logged(trainer):
    return [
        {name: line[name] for name in ("loss", "grad_norm", "num_tokens")}
        for line in trainer.state.log_history
        if "loss" in line
    ]


@pytest.mark.parametrize(("stage", "rows_of_an_item"), [("sft", 1), ("rm", 2)])
def test_training_is_that_of_whole_batches(tmp_path, stage, rows_of_an_item):
    said: list[str] = []
    whole = trainer_of(stage, tmp_path / "whole", **BATCH)
    whole.train()
    split = automatic(trainer_of(stage, tmp_path / "split", **BATCH), said)
    cramp(split, rows=3 * rows_of_an_item)
    split.train()
    assert split.pass_size.rows == 2
    assert len(said) == 1
    for name, weight in weights(split).items():
        assert torch.allclose(weight, weights(whole)[name], atol=2e-5), name
    for found, expected in zip(logged(split), logged(whole), strict=True):
        assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("stage", ["sft", "rm"])
def test_where_memory_suffices_nothing_changes_to_the_last_bit(tmp_path, stage):
    said: list[str] = []
    plain = trainer_of(stage, tmp_path / "plain", **BATCH)
    plain.train()
    tried = automatic(trainer_of(stage, tmp_path / "tried", **BATCH), said)
    tried.train()
    assert said == []
    assert logged(tried) == logged(plain)
    for name, weight in weights(tried).items():
        assert torch.equal(weight, weights(plain)[name]), name


@pytest.mark.parametrize("stage", ["sft", "rm"])
def test_memory_that_runs_out_within_a_backward_pass_costs_no_gradient(tmp_path, stage):
    """The second of two batches of an optimizer step fails after gradients of its last layers."""
    sizes = BATCH | {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    whole = trainer_of(stage, tmp_path / "whole", **sizes)
    whole.train()
    split = trainer_of(stage, tmp_path / "split", **sizes)
    split.pass_size = PassSize(2, automatic=True, say=lambda _text: None)
    passes = 0

    def fail_once(gradient):
        nonlocal passes
        passes += 1
        if passes == 4:
            torch.empty(2**60, dtype=torch.uint8)

    first = next(p for name, p in split.model.named_parameters() if "layers.0" in name)
    first.register_hook(fail_once)
    split.train()
    assert split.pass_size.rows == 1
    for name, weight in weights(split).items():
        assert torch.allclose(weight, weights(whole)[name], atol=2e-5), name
    for found, expected in zip(logged(split), logged(whole), strict=True):
        assert found == pytest.approx(expected, rel=1e-3)


def test_the_longest_rows_are_tried_before_the_first_step(tmp_path):
    trainer = automatic(trainer_of("rm", tmp_path, **BATCH), [])
    widths = []
    trainer.model.register_forward_pre_hook(
        lambda _module, _arguments, named: widths.append(named["input_ids"].shape),
        with_kwargs=True,
    )
    trainer.train()
    longest = max(
        len(a) for row in trainer.train_dataset for a in (row["chosen_ids"], row["rejected_ids"])
    )
    assert widths[0] == (8, longest)


def test_margins_and_unequal_parts_weigh_as_in_the_whole_batch(tmp_path):
    margins = [0.1 * at for at in range(12)]
    whole = trainer_of("rm", tmp_path / "whole", margins, **BATCH)
    whole.train()
    split = trainer_of("rm", tmp_path / "split", margins, **BATCH)
    split.pass_size = PassSize(3)
    split.train()
    for name, weight in weights(split).items():
        assert torch.allclose(weight, weights(whole)[name], atol=2e-5), name
