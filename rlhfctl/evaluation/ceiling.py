"""Upper bound on reward-model accuracy implied by annotator disagreement."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rlhfctl.evaluation.intervals import Interval

if TYPE_CHECKING:
    from rlhfctl.results.estimate import Estimate


def annotator_accuracy(agreement: float) -> float:
    """Return the annotator accuracy s that solves q = s^2 + (1 - s)^2 for agreement q.

    The larger root; 0.5 if agreement is below 0.5. Errors are assumed independent, with one rate
    for all pairs. If difficulty varies between pairs, the best possible accuracy lies below s, so
    s is an upper bound.

    Raises:
        ValueError: If the agreement is not between 0 and 1.
    """
    if not 0.0 <= agreement <= 1.0:
        raise ValueError(f"agreement must lie between 0 and 1, not at {agreement}")
    return (1.0 + math.sqrt(max(0.0, 2.0 * agreement - 1.0))) / 2.0


def accuracy_ceiling(agreement: Interval) -> Interval:
    """Return the highest possible accuracy of a model on single labels."""
    ends = (agreement.value, agreement.low, agreement.high)
    return Interval(*(annotator_accuracy(end) for end in ends))


def above_ceiling(accuracy: Estimate, ceiling: Interval) -> str | None:
    """Return a warning if a reward model's accuracy lies above the ceiling; else None.

    Args:
        accuracy: Accuracy of the reward model.
        ceiling: Result of `accuracy_ceiling`; the model's whole interval must lie above it.
    """
    if accuracy.low is None or accuracy.low <= ceiling.high:
        return None
    return (
        f"reward model accuracy {accuracy.value:.1%} (95 % CI from {accuracy.low:.1%}) lies above "
        f"the ceiling of {ceiling.value:.1%} implied by annotator disagreement. Check for pairs in "
        "both splits, or for a shortcut such as length that annotators share"
    )
