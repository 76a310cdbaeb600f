"""Frontiers of reward against KL: the points of each method, and their values at one KL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from rlhfctl.evaluation.win_rate import pairwise_outcomes
from rlhfctl.results.methods import FrontierPoint, MeanPoint
from rlhfctl.sweep.metrics import mean_over_seeds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.results.estimate import Estimate
    from rlhfctl.results.evaluation import BestOfN, BestOfNRow
    from rlhfctl.results.methods import Judge
    from rlhfctl.results.scores import PromptScores
    from rlhfctl.results.training import HeldOutLine

Value = Literal["win_rate", "gain", "proxy_gain"]
_STEPS = 13
START = FrontierPoint(kl=0.0, win_rate=0.5, gain=0.0, proxy_gain=0.0, name="SFT")
"""SFT against itself."""


def of_held_out(lines: Sequence[HeldOutLine]) -> list[FrontierPoint]:
    """Return the policies of PPO's held-out evaluations; the first is SFT.

    Each is compared with the first on the same prompts.
    """
    first = lines[0].per_prompt
    points = [
        FrontierPoint(
            kl=line.kl.value,
            win_rate=_mean(pairwise_outcomes(line.per_prompt["true_reward"], first["true_reward"])),
            gain=_difference(line.per_prompt["true_reward"], first["true_reward"]),
            proxy_gain=_difference(line.per_prompt["proxy"], first["proxy"]),
            name=f"{line.step:,} episodes",
        )
        for line in lines[1:]
    ]
    return in_order(points)


def of_evaluation(scores: PromptScores, judge: Judge, name: str) -> FrontierPoint:
    """Return the policy of an evaluation, compared with SFT on its prompts.

    Raises:
        KeyError: No policy was evaluated beside SFT.
    """
    sft, policy = scores.policies["sft"], scores.policies["ppo"]
    before, after = (
        (sft.gold, policy.gold)
        if judge == "gold"
        else (
            sft.held_out_rm,
            policy.held_out_rm,
        )
    )
    if before is None or after is None:
        raise KeyError(f"the evaluation has no scores by {judge}")
    return FrontierPoint(
        kl=_mean(policy.kl),
        win_rate=_mean(pairwise_outcomes(after, before)),
        gain=_difference(after, before),
        proxy_gain=_difference(policy.proxy, sft.proxy) if policy.proxy and sft.proxy else None,
        name=name,
    )


def of_best_of_n(result: BestOfN, judge: Judge) -> list[FrontierPoint]:
    """Return best-of-n from n = 2; gains are over n = 1, SFT itself.

    Raises:
        KeyError: The curves have no win rates.
    """
    values = result.gold if judge == "gold" else result.true_reward
    if result.win_rate is None or values is None:
        raise KeyError(f"best-of-n has no scores by {judge}")
    rows = list(zip(result.win_rate, values, result.proxy, strict=True))

    def gain(row: BestOfNRow, first: BestOfNRow) -> float:
        return row.value.value - first.value.value

    return in_order(
        [
            FrontierPoint(
                kl=win.kl,
                win_rate=win.value.value,
                gain=gain(value, values[0]),
                proxy_gain=gain(proxy, result.proxy[0]),
                name=f"n = {win.n}",
            )
            for win, value, proxy in rows[1:]
        ]
    )


def in_order(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """Return points by KL, after SFT; those whose sampled KL is not above 0 are left out."""
    return [START, *sorted((point for point in points if point.kl > 0.0), key=lambda p: p.kl)]


def value_at(points: Sequence[FrontierPoint], kl: float, value: Value) -> float | None:
    """Return a value at some KL: linear in the root of KL between the two points around it.

    None beyond the last point, since nothing is extrapolated, and where a point lacks the value.

    Args:
        points: Result of `in_order`.
        kl: Nats per response.
        value: Name of the value.
    """
    values = [getattr(point, value) for point in points]
    if kl > points[-1].kl or None in values:
        return None
    distances = np.sqrt([point.kl for point in points])
    return float(np.interp(np.sqrt(kl), distances, values))


def common_kl(frontiers: Sequence[Sequence[FrontierPoint]]) -> float | None:
    """Return the largest KL that every frontier reaches; None if one has SFT alone, or for none."""
    ends = [points[-1].kl for points in frontiers if points]
    return min(ends) if ends and min(ends) > 0.0 else None


def mean_frontier(frontiers: Sequence[Sequence[FrontierPoint]]) -> list[MeanPoint]:
    """Return the mean of a method's frontiers at equal steps of the root of KL; empty without any.

    A single frontier keeps its own points.
    """
    end = common_kl(frontiers)
    if end is None:
        return []
    if len(frontiers) == 1:
        kls = [point.kl for point in frontiers[0]]
    else:
        kls = [*(np.linspace(0.0, np.sqrt(end), _STEPS)[:-1] ** 2).tolist(), end]
    return [
        MeanPoint(kl, win_rate, gain, _mean_at(frontiers, kl, "proxy_gain"))
        for kl in kls
        if (win_rate := _mean_at(frontiers, kl, "win_rate")) is not None
        and (gain := _mean_at(frontiers, kl, "gain")) is not None
    ]


def _mean_at(
    frontiers: Sequence[Sequence[FrontierPoint]], kl: float, value: Value
) -> Estimate | None:
    values = [value_at(points, kl, value) for points in frontiers]
    measured = [number for number in values if number is not None]
    return mean_over_seeds(measured) if len(measured) == len(frontiers) else None


def over_optimisation(points: Sequence[FrontierPoint]) -> float:
    """Return the gain at the largest KL minus the best gain, at most 0."""
    return points[-1].gain - max(point.gain for point in points)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _difference(after: Sequence[float], before: Sequence[float]) -> float:
    return _mean(np.asarray(after) - np.asarray(before))
