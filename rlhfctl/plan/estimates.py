"""Estimated peak of every stage, from its largest passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.plan.ppo_memory import (
    ppo_update_peak,
    sampling_peak,
    scoring_peak,
    waiting_peak,
)
from rlhfctl.plan.server import awake, server_of
from rlhfctl.plan.stage_memory import dpo_peak, reward_peak, sft_evaluation_peak, sft_peak
from rlhfctl.stage_table import DPO, PPO, REWARD_MODEL, SFT

if TYPE_CHECKING:
    from collections.abc import Callable

    from rlhfctl.plan.live_bytes import Split
    from rlhfctl.plan.stage_memory import Planned

VLLM_SAMPLING = "vLLM sampling"
"""Name of the pass in which a server that sleeps between rollouts samples."""
Passes = dict[str, "Callable[[], Split]"]


def passes(planned: Planned, stage: str) -> Passes:
    """Return the passes of a stage that may have its peak, by name.

    Args:
        planned: Recipe on a device.
        stage: Name in the stage table.
    """
    if stage == SFT.name:
        return {
            "training": lambda: sft_peak(planned),
            "evaluation": lambda: sft_evaluation_peak(planned),
        }
    rollout = planned.recipe.sampled_at_once
    if stage == REWARD_MODEL.name:
        return {
            "training": lambda: reward_peak(planned),
            "sampling": lambda: sampling_peak(planned, rollout, training=False),
        }
    if stage == PPO.name:
        steps: Passes = {
            "update": lambda: ppo_update_peak(planned),
            "scoring": lambda: scoring_peak(planned),
        }
        if planned.recipe.ppo.engine == "vllm":
            return steps | _server_awake(planned)
        return steps | {"sampling": lambda: sampling_peak(planned, rollout, training=True)}
    if stage == DPO.name:
        return {"training": lambda: dpo_peak(planned)}
    rows = planned.recipe.evaluation.batch_size
    return {"sampling": lambda: sampling_peak(planned, rows, training=False)}


def _server_awake(planned: Planned) -> Passes:
    """Return the pass in which a server that sleeps between rollouts has its memory."""
    server = server_of(planned)
    if server is None or server.memory == server.asleep:
        return {}
    return {VLLM_SAMPLING: lambda: waiting_peak(planned).plus(awake(server))}


@dataclass(frozen=True)
class Peak:
    """A stage's peak.

    Attributes:
        name: Pass that has it.
        split: Bytes by kind.
    """

    name: str
    split: Split


def peak_of_stage(planned: Planned, stage: str) -> Peak:
    """Return the largest of a stage's passes.

    Args:
        planned: Recipe on a device.
        stage: Name in the stage table.
    """
    peaks = [Peak(name, estimate()) for name, estimate in passes(planned, stage).items()]
    return max(peaks, key=lambda peak: peak.split.total)


def training_peak(planned: Planned, stage: str) -> int:
    """Return the bytes of the peak of a stage's training, as a probe measures it.

    The probe evaluates nothing, and samples in PPO only.

    Args:
        planned: Recipe on a device.
        stage: sft, rm, ppo or dpo.
    """
    if stage == PPO.name:
        return peak_of_stage(planned, stage).split.total
    return passes(planned, stage)["training"]().total
