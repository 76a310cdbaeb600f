"""What a judge's preferences amount to: win rates, plain and at equal length, and position bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhfctl.evaluation.intervals import Interval, paired_bootstrap_mean
from rlhfctl.evaluation.length_controlled import FAR, length_controlled_win_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike


def pairwise_outcomes(scores: ArrayLike, other_scores: ArrayLike) -> list[float]:
    """Return 1 where a score is the higher one, 0 where the lower, a half where they are equal."""
    difference = np.asarray(scores, dtype=np.float64) - np.asarray(other_scores, np.float64)
    outcomes: list[float] = (0.5 + 0.5 * np.sign(difference)).tolist()
    return outcomes


def win_rate_metrics(
    outcomes: Sequence[float | None],
    texts: Sequence[str],
    other_texts: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """Return what a judge's preferences amount to, ready for JSON.

    `win_rate` is the mean outcome, with a bootstrap interval over prompts;
    `length_controlled_win_rate` has one of the whole fit; `wins`, `ties`, `losses` count outcomes
    above, at and below a half, `prompts` those with an outcome; `warnings` says what to mind.

    Args:
        outcomes: [prompts] how far the policy was preferred, 0 to 1; None: the judge did not say.
        texts: [prompts] the policy's responses.
        other_texts: [prompts] those it was compared with.
        seed: Of the bootstraps.

    Raises:
        ValueError: The three differ in length.
    """
    kept = [
        (outcome, len(text), len(other))
        for outcome, text, other in zip(outcomes, texts, other_texts, strict=True)
        if outcome is not None
    ]
    metrics: dict[str, Any] = {
        "wins": sum(outcome > 0.5 for outcome, _, _ in kept),
        "ties": sum(outcome == 0.5 for outcome, _, _ in kept),
        "losses": sum(outcome < 0.5 for outcome, _, _ in kept),
        "prompts": len(kept),
        "warnings": [],
    }
    if not kept:
        metrics["warnings"].append("it gave no preference on any prompt")
        return metrics
    won, lengths, others = (
        np.array(column, dtype=np.float64) for column in zip(*kept, strict=True)
    )
    if len(won) < 2:
        return metrics | {"win_rate": float(won[0])}
    plain = paired_bootstrap_mean(won, seed)
    controlled = length_controlled_win_rate(won, lengths, others, seed)
    if abs(controlled.estimate - plain.estimate) > FAR:
        metrics["warnings"].append(
            f"at equal length the win rate would be {controlled.estimate:.0%}, not "
            f"{plain.estimate:.0%}: length sways it"
        )
    metrics |= plain.metrics("win_rate")
    return metrics | controlled.metrics("length_controlled_win_rate")


@dataclass(frozen=True)
class BothOrders:
    """A judge's verdicts on pairs that were shown in both orders.

    Attributes:
        first: [prompts] how far the policy won when it was shown first; None: no verdict.
        second: [prompts] how far it won when it was shown second.
    """

    first: Sequence[float | None]
    second: Sequence[float | None]

    def outcomes(self) -> list[float | None]:
        """Return [prompts] the mean of both; None where either has no verdict.

        One order alone would carry the judge's liking for a position into the win rate.
        """
        return [
            None if one is None or other is None else (one + other) / 2
            for one, other in zip(self.first, self.second, strict=True)
        ]

    def first_share(self, seed: int) -> Interval | None:
        """Return how often the response shown first won, ties one half, over both orders.

        A judge without a liking for a position has 0.5. None with fewer than two prompts.

        Args:
            seed: Of the bootstrap over prompts.
        """
        shares = [
            (one + 1.0 - other) / 2
            for one, other in zip(self.first, self.second, strict=True)
            if one is not None and other is not None
        ]
        return paired_bootstrap_mean(shares, seed) if len(shares) > 1 else None

    def bias_metrics(self, seed: int) -> dict[str, Any]:
        """Return `position_bias` and, where it is more than chance, a warning; ready for JSON."""
        share = self.first_share(seed)
        if share is None:
            return {"warnings": []}
        warnings = []
        if not share.low <= 0.5 <= share.high:
            place = "first" if share.estimate > 0.5 else "second"
            favoured = max(share.estimate, 1.0 - share.estimate)
            warnings.append(
                f"it prefers the response shown {place} in {favoured:.0%} of comparisons; both "
                "orders are asked, so the win rate leans to neither side, but to 50 %"
            )
        return {"position_bias": share.metrics("first_share"), "warnings": warnings}
