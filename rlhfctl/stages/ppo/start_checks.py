"""Checks before PPO: an accurate reward model, and a policy that equals its reference and ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rlhfctl.errors import CheckpointError
from rlhfctl.maths.sequences import Sequences
from rlhfctl.models.role_models import TRAINED
from rlhfctl.results.io import read_result
from rlhfctl.results.training import RewardModelResult, RewardProbe
from rlhfctl.run.directory import METRICS_FILE, PROBE_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlhfctl.models.roles import Roles

RATIO_TOLERANCE = 1e-3
FEWEST_ENDED = 0.5
"""Share of SFT's responses that end, below which the preflight warns."""
_PROBE_PROMPTS = 8
_ENDING_PROMPTS = 64


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        name: Short name.
        passed: Whether the check passed.
        detail: Measured values.
        caution: Whether a failure is only warned of, whatever `ppo.gate` says.
    """

    name: str
    passed: bool
    detail: str
    caution: bool = False

    def __str__(self) -> str:
        """Return name and measured values."""
        return f"{self.name}: {self.detail}"


def check_accuracy(rm: Path) -> list[Check]:
    """Check that the reward model's 95 % CI lies above chance and the length baseline.

    The baseline always prefers the longer response or always the shorter one, whichever is right
    more often.
    """
    file = rm / METRICS_FILE
    try:
        result = read_result(RewardModelResult, file)
    except CheckpointError as error:
        missing = f"{file} is missing: this reward model was not evaluated"
        detail = f"{error.where}: {error.what}" if file.exists() else missing
        return [Check("reward model accuracy", passed=False, detail=detail)]
    low, baseline = result.accuracy.low, result.length_baseline
    if low is None:
        detail = f"{file} has an accuracy without an interval"
        return [Check("reward model accuracy", passed=False, detail=detail)]
    measured = f"accuracy {result.accuracy.value:.3f} (95 % CI from {low:.3f})"
    return [
        Check("reward model above chance", low > 0.5, measured),
        Check(
            "reward model above the length baseline",
            low > baseline.accuracy.value,
            f"{measured}, {baseline}: {baseline.accuracy.value:.3f}",
        ),
    ]


def check_ending(
    roles: Roles, prompts: Sequence[Sequence[int]], seed: int, rm: Path | None
) -> Check:
    """Check that SFT's responses mostly end; the score of one that does not is a constant.

    Args:
        roles: Roles that PPO will use.
        prompts: Token ids per prompt.
        seed: Sampling seed.
        rm: Reward model, whose training recorded the share; None: the share is sampled.
    """
    share = _recorded_eos_share(rm) if rm is not None else None
    if share is None:
        chosen = prompts[:_ENDING_PROMPTS]
        seeds = [(seed, index) for index in range(len(chosen))]
        responses = roles.generate(chosen, seeds, "reference")
        share = sum(map(roles.ended, responses)) / len(responses)
    measured = f"{share:.1%} within generation.max_new_tokens ({roles.max_new_tokens:,})"
    passed = share >= FEWEST_ENDED
    detail = measured
    if not passed:
        detail = (
            f"SFT seldom ends its responses, {measured}; raise generation.max_new_tokens, or train "
            "SFT longer"
        )
    return Check("end of SFT's responses", passed, detail, caution=True)


def _recorded_eos_share(rm: Path) -> float | None:
    """Return the share that the reward model's training recorded; None where it has no record."""
    try:
        return read_result(RewardModelResult, rm / METRICS_FILE).sft_eos_share
    except CheckpointError:
        # `check_accuracy` reports the file.
        return None


def check_reload(rm: Path, roles: Roles, *, exact: bool) -> Check:
    """Check that the reward model, reloaded as a role, reproduces its scores from training.

    Args:
        rm: Checkpoint of the reward model, with the probe saved by training.
        roles: Roles loaded from it.
        exact: Whether weights are fp32; otherwise scores may differ by 5 % of their standard
            deviation.
    """
    name = "reward model scores as in training"
    damaged = Check(name, passed=False, detail=f"{rm / PROBE_FILE} is missing or damaged")
    try:
        probe = read_result(RewardProbe, rm / PROBE_FILE)
    except CheckpointError:
        return damaged
    if not probe.ids or len(probe.ids) != len(probe.scores):
        return damaged
    batch = Sequences.from_lists(
        [row[:-1] for row in probe.ids],
        [row[-1:] for row in probe.ids],
        roles.pad_token_id,
        roles.device,
    )
    now = roles.raw_scores(batch).cpu()
    then = torch.tensor(probe.scores)
    worst = float((now - then).abs().max())
    allowed = 1e-4 if exact else 0.05 * roles.normalizations[0].deviation
    return Check(name, worst <= allowed, f"largest difference {worst:.2g}, tolerance {allowed:.2g}")


def _largest_ratio_error(new: torch.Tensor, old: torch.Tensor) -> float:
    return float((new - old).exp().sub(1.0).abs().max())


def check_start(
    roles: Roles, prompts: Sequence[Sequence[int]], seed: int, trained: Sequence[str] = TRAINED
) -> list[Check]:
    """Check that KL starts at 0, ratios at 1, without dropout, and that trained roles can learn.

    Args:
        roles: Roles that PPO will use.
        prompts: Token ids per prompt; the first few are used.
        seed: Sampling seed.
        trained: Roles to train.
    """
    chosen = prompts[:_PROBE_PROMPTS]
    responses = roles.generate(chosen, [(seed, index) for index in range(len(chosen))])
    batch = Sequences.from_lists(chosen, responses, roles.pad_token_id, roles.device)
    policy = roles.log_probs("policy", batch).log_probs
    reference = roles.log_probs("reference", batch).log_probs
    difference = float((policy - reference).abs().max())
    now = roles.log_probs("policy", batch, training=True).log_probs
    now.sum().backward()
    ratio = _largest_ratio_error(now.detach(), policy)
    again = roles.log_probs("policy", batch, training=True).log_probs.detach()
    noise = _largest_ratio_error(again, now.detach())
    if "critic" in trained:
        roles.values(batch, training=True).sum().backward()
    checks = [
        Check("KL is 0 at step 0", difference == 0.0, f"largest difference {difference:.2g} nats"),
        Check(
            "ratios are 1 at step 0",
            ratio <= RATIO_TOLERANCE,
            f"largest difference {ratio:.2g}",
        ),
        Check(
            "no dropout in training passes",
            noise <= RATIO_TOLERANCE,
            f"ratios of two identical passes differ from 1 by {noise:.2g}",
        ),
    ]
    for role in trained:
        weights = list(roles.trainable(role).values())
        norm = sum(float(w.grad.square().sum()) for w in weights if w.grad is not None) ** 0.5
        for weight in weights:
            weight.grad = None
        checks.append(
            Check(
                f"{role} can learn",
                bool(weights) and 0.0 < norm < float("inf"),
                f"{sum(w.numel() for w in weights)} weights, gradient norm {norm:.3g}",
            )
        )
    return checks
