"""Win rates of a judge, plain and length-controlled, and its position bias."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.evaluation.intervals import Interval, paired_bootstrap_mean
from rlhfctl.evaluation.length_controlled import FAR, length_controlled_win_rate
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import PositionBias, Preferences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike


def pairwise_outcomes(scores: ArrayLike, other_scores: ArrayLike) -> list[float]:
    """Return 1 where the score is higher, 0 where lower, 0.5 at ties."""
    difference = np.asarray(scores, dtype=np.float64) - np.asarray(other_scores, np.float64)
    outcomes: list[float] = (0.5 + 0.5 * np.sign(difference)).tolist()
    return outcomes


def win_rate_metrics(
    outcomes: Sequence[float | None],
    texts: Sequence[str],
    other_texts: Sequence[str],
    seed: int,
) -> Preferences:
    """Return the summary of a judge's preferences.

    The mean outcome has a bootstrap interval over prompts; the length-controlled win rate has one
    of the whole fit.

    Args:
        outcomes: [prompts] preference for the policy, 0 to 1; None without a preference.
        texts: [prompts] the policy's responses.
        other_texts: [prompts] the opponent's responses.
        seed: Seed of the bootstraps.

    Raises:
        ValueError: The three differ in length.
    """
    preferred = [
        (outcome, len(text), len(other))
        for outcome, text, other in zip(outcomes, texts, other_texts, strict=True)
        if outcome is not None
    ]
    counts = Preferences(
        wins=sum(outcome > 0.5 for outcome, _, _ in preferred),
        ties=sum(outcome == 0.5 for outcome, _, _ in preferred),
        losses=sum(outcome < 0.5 for outcome, _, _ in preferred),
        prompts=len(preferred),
        warnings=[],
    )
    if not preferred:
        return replace(counts, warnings=["no preference on any prompt"])
    won, lengths, others = (
        np.array(column, dtype=np.float64) for column in zip(*preferred, strict=True)
    )
    if len(won) < 2:
        return replace(counts, win_rate=Estimate(float(won[0])))
    plain = paired_bootstrap_mean(won, seed)
    controlled = length_controlled_win_rate(won, lengths, others, seed)
    warnings = []
    if abs(controlled.value - plain.value) > FAR:
        warnings.append(
            f"win rate at equal length is {controlled.value:.0%}, not {plain.value:.0%}:"
            " the judge is sensitive to length"
        )
    return replace(counts, warnings=warnings, win_rate=plain, length_controlled_win_rate=controlled)


@dataclass(frozen=True)
class BothOrders:
    """A judge's verdicts on pairs shown in both orders.

    Attributes:
        first: [prompts] outcome for the policy when shown first; None: no verdict.
        second: [prompts] outcome for the policy when shown second.
    """

    first: Sequence[float | None]
    second: Sequence[float | None]

    def outcomes(self) -> list[float | None]:
        """Return [prompts] the mean of both orders; None if either has no verdict.

        A single order would add the judge's position bias to the win rate.
        """
        return [
            None if one is None or other is None else (one + other) / 2
            for one, other in zip(self.first, self.second, strict=True)
        ]

    def first_share(self, seed: int) -> Interval | None:
        """Return the win rate of the response shown first over both orders; ties count one half.

        An unbiased judge has 0.5. None with fewer than two prompts.

        Args:
            seed: Seed of the bootstrap over prompts.
        """
        shares = [
            (one + 1.0 - other) / 2
            for one, other in zip(self.first, self.second, strict=True)
            if one is not None and other is not None
        ]
        return paired_bootstrap_mean(shares, seed) if len(shares) > 1 else None

    def position_bias(self, seed: int) -> tuple[PositionBias | None, list[str]]:
        """Return the position bias, and warnings where its 95 % CI excludes 0.5."""
        share = self.first_share(seed)
        if share is None:
            return None, []
        warnings = []
        if not share.low <= 0.5 <= share.high:
            place = "first" if share.value > 0.5 else "second"
            favoured = max(share.value, 1.0 - share.value)
            warnings.append(
                f"prefers the response shown {place} in {favoured:.0%} of comparisons; each pair"
                " is judged in both orders, which draws the win rate towards 50 %"
            )
        return PositionBias(share), warnings
