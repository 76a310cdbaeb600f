"""How accurate a reward model can be on labels about which the annotators themselves disagree."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rlhfctl.evaluation.intervals import Interval

if TYPE_CHECKING:
    from rlhfctl.results.estimate import Estimate


def annotator_accuracy(agreement: float) -> float:
    """Return s of q = s^2 + (1 - s)^2: how often an annotator is right, if two agree at rate q.

    The larger root; a half where they agree less often than coins do. Two annotators are taken to
    err independently and alike on every pair. Where some pairs are harder than others the best
    possible model stays below s, so s bounds its accuracy from above.

    Raises:
        ValueError: If the agreement is no share.
    """
    if not 0.0 <= agreement <= 1.0:
        raise ValueError(f"an agreement lies between 0 and 1, not at {agreement}")
    return (1.0 + math.sqrt(max(0.0, 2.0 * agreement - 1.0))) / 2.0


def accuracy_ceiling(agreement: Interval) -> Interval:
    """Return the highest accuracy that a model of the truth can have on single labels."""
    ends = (agreement.value, agreement.low, agreement.high)
    return Interval(*(annotator_accuracy(end) for end in ends))


def above_ceiling(accuracy: Estimate, ceiling: Interval) -> str | None:
    """Return a warning if a reward model's accuracy lies above the ceiling; else None.

    Args:
        accuracy: Accuracy of the reward model.
        ceiling: Result of `accuracy_ceiling`; the model's interval must lie above all of it.
    """
    if accuracy.low is None or accuracy.low <= ceiling.high:
        return None
    return (
        f"reward model accuracy {accuracy.value:.1%} (95 % CI from {accuracy.low:.1%}) lies above "
        f"the ceiling of {ceiling.value:.1%} implied by annotator disagreement. Check for pairs in "
        "both splits, or for a shortcut such as length that annotators share"
    )
