"""Tokens, optimizer steps, time and disk space of the stages, from the recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlhfctl.plan.target import UTILISATION

if TYPE_CHECKING:
    from rlhfctl.plan.live_bytes import Split
    from rlhfctl.plan.stage_memory import Planned
    from rlhfctl.recipe.schema import DatasetSection
    from rlhfctl.recipe.training import TrainingSection

_FORWARD, _BACKWARD = 2, 2
"""Operations per weight and token: of a forward pass, and of each of the two products of a backward
pass, by states and by weights (Kaplan et al. 2020, section 2.1). Frozen weights need one of them."""
_CHECKPOINT = 12
"""Bytes per trained weight in a checkpoint: itself and two moments, in fp32 (`disk_space.checkpoint_bytes`)."""
_OTHER_FILES = 2**19


@dataclass(frozen=True)
class Work:
    """Amounts that a stage computes and writes.

    Attributes:
        tokens: Most tokens that it trains on (PPO: that it samples and reads); None: the number of
            rows is not in the recipe.
        steps: Optimizer steps; None likewise.
        seconds: Time by the stated speed; None where there is no speed or no number of rows.
        disk_bytes: Checkpoints to keep and the result.
    """

    tokens: int | None
    steps: int | None
    seconds: float | None
    disk_bytes: int


def supervised_work(
    planned: Planned, section: TrainingSection, data: DatasetSection, split: Split, sides: int
) -> Work:
    """Return the work of SFT or of the reward model.

    Args:
        planned: Recipe on a device.
        section: Section of the stage.
        data: Its rows.
        split: Its peak, which tells the trained weights.
        sides: Sequences per row: 1, or 2 for comparisons.
    """
    disk = _disk(planned, split, 1, section.keep_last + section.load_best_model_at_end)
    if data.max_rows is None:
        return Work(None, None, None, disk)
    rows = int(data.max_rows * (1.0 - data.held_out))
    batch = section.per_device_train_batch_size * section.gradient_accumulation_steps
    steps = math.ceil(math.ceil(rows / batch) * section.num_train_epochs)
    tokens = int(sides * rows * section.max_length * section.num_train_epochs)
    operations = tokens * _per_token(planned, checkpointing=section.gradient_checkpointing)
    return Work(tokens, steps, _seconds(planned, operations), disk)


def dpo_work(planned: Planned, split: Split) -> Work:
    """Return the work of DPO: both rows of a pair are trained on, and read by the reference too."""
    section, data = planned.recipe.dpo, planned.recipe.data.comparisons
    # Half of the adapters' bytes are the reference's.
    trained = replace(split, bytes=split.bytes | {"adapters": split.bytes["adapters"] // 2})
    work = supervised_work(planned, section, data, trained, 2)
    if work.tokens is None or work.seconds is None:
        return work
    reading = _seconds(planned, work.tokens * _FORWARD * planned.architecture.parameters)
    return replace(work, seconds=work.seconds + (reading or 0.0))


def ppo_work(planned: Planned, split: Split) -> Work:
    """Return the work of PPO: sampling, a pass of every role, and the update.

    Sampling reads all weights for every token of a batch, so memory's bandwidth bounds it where
    that is slower than the operations.
    """
    ppo, parameters = planned.recipe.ppo, planned.architecture.parameters
    prompt, response = planned.lengths
    episodes = ppo.rollouts * ppo.rollout_batch_size
    tokens = episodes * (prompt + response)
    trained = 1 + ppo.has_own_critic
    steps = ppo.rollouts * ppo.epochs * (ppo.rollout_batch_size // ppo.minibatch_size)
    scored = _FORWARD * parameters * (2 + ppo.uses_rm + ppo.has_own_critic)
    update = _per_token(planned, checkpointing=ppo.gradient_checkpointing) * ppo.epochs * trained
    operations = tokens * (scored + update + _FORWARD * parameters)
    seconds = _seconds(planned, operations)
    if seconds is not None and planned.target.bandwidth is not None:
        passes = ppo.rollouts * response
        seconds += passes * split.bytes["weights"] / planned.target.bandwidth
    # The one that an alarm goes back to is kept, too.
    checkpoints = ppo.keep_last + (ppo.on_alarm in {"rollback", "stop"})
    return Work(tokens, steps, seconds, _disk(planned, split, trained, checkpoints))


def _per_token(planned: Planned, *, checkpointing: bool) -> int:
    """Return the operations per token of a training pass."""
    backward = _BACKWARD * (1 if planned.recipe.lora is not None else 2)
    return planned.architecture.parameters * (
        _FORWARD + backward + (_FORWARD if checkpointing else 0)
    )


def _seconds(planned: Planned, operations: float) -> float | None:
    flops = planned.target.flops
    return None if flops is None else operations / (flops * UTILISATION)


def _disk(planned: Planned, split: Split, roles: int, keep_last: int) -> int:
    """Return the bytes of checkpoints and result with `roles` trained models or adapters."""
    if planned.recipe.lora is None:
        weights = roles * planned.architecture.parameters
    else:
        weights = split.bytes["adapters"] // 4
    return keep_last * (_CHECKPOINT * weights + _OTHER_FILES) + 4 * weights + _OTHER_FILES
