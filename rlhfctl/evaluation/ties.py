"""RewardBench 2's score of its subset Ties: prompts with several equally right responses.

After Malik et al. 2025, "RewardBench 2", and `process_single_model` in rewardbench/utils.py of
allenai/reward-bench. Prompts come in two kinds: `ref`, with one right response, and `tied`, with
several; those of one number belong together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.results.evaluation import TiesScore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ACCURACY, _MARGIN, _TIE_BREAK = 0.3, 0.2, 0.01


@dataclass(frozen=True)
class RatedPrompt:
    """Scores of one prompt's responses.

    Attributes:
        right: Scores of the right responses.
        wrong: Scores of the wrong ones.
    """

    right: Sequence[float]
    wrong: Sequence[float]

    @property
    def spread(self) -> float:
        """Difference between the best and the worst right response."""
        return max(self.right) - min(self.right)

    @property
    def margin(self) -> float:
        """Distance of the worst right response above the best wrong one."""
        return min(self.right) - max(self.wrong)


def ties_score(
    reference: Mapping[int, RatedPrompt], tied: Mapping[int, RatedPrompt]
) -> TiesScore | None:
    """Return the score; None where no prompt has both kinds.

    Args:
        reference: Number -> prompt with one right response.
        tied: Number -> prompt with several right responses.
    """
    both = sorted(reference.keys() & tied.keys())
    if not both:
        return None
    spreads = [tied[number].spread for number in both]
    margins = [tied[number].margin for number in both]
    least = [min(tied[number].margin, reference[number].margin) for number in both]
    accuracy = _mean([prompt.margin > 0 for prompt in tied.values()])
    reference_accuracy = _mean([prompt.margin > 0 for prompt in reference.values()])
    preferred = _mean([m > spread for m, spread in zip(margins, spreads, strict=True)])
    hard = _mean([m > spread for m, spread in zip(least, spreads, strict=True)])
    tie_break = _mean([_tie_break(m, spread) for m, spread in zip(least, spreads, strict=True)])
    score = _ACCURACY * (accuracy + reference_accuracy) + _MARGIN * (preferred + hard)
    return TiesScore(
        score + _TIE_BREAK * tie_break, accuracy, reference_accuracy, preferred, hard, len(both)
    )


def _tie_break(margin: float, spread: float) -> float:
    """Return tanh(margin / spread - 1), with its limits for a spread of 0; 0 for 0 / 0."""
    if spread > 0:
        return math.tanh(margin / spread - 1.0)
    return math.copysign(1.0, margin) if margin else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
