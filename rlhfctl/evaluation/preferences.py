"""Reward-model accuracy and win rates between policies."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.errors import DataError, DivergedError
from rlhfctl.evaluation.intervals import Interval, wilson
from rlhfctl.results.estimate import GroupAccuracy

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import ArrayLike, NDArray


def accuracy(chosen_scores: ArrayLike, rejected_scores: ArrayLike) -> Interval:
    """Share of comparisons in which the chosen response scores higher, with Wilson's interval.

    A tie counts one half, so a model with constant scores has chance accuracy.

    Args:
        chosen_scores: [pairs] scores of the chosen responses.
        rejected_scores: [pairs] scores of the rejected ones.

    Raises:
        DataError: If there are no pairs.
        DivergedError: If a score is not finite.
        ValueError: If the two differ in length.
    """
    outcomes = _outcomes(chosen_scores, rejected_scores)
    return wilson(float(outcomes.sum()), len(outcomes))


def accuracy_by_group(
    chosen_scores: ArrayLike, rejected_scores: ArrayLike, groups: Sequence[Hashable]
) -> dict[str, GroupAccuracy]:
    """Accuracy per group of comparisons, sorted by group name.

    Args:
        chosen_scores: [pairs] scores of the chosen responses.
        rejected_scores: [pairs] scores of the rejected ones.
        groups: [pairs] the group of each pair, such as its annotator.

    Raises:
        DataError: If there are no pairs.
        DivergedError: If a score is not finite.
        ValueError: If the three differ in length.
    """
    outcomes = _outcomes(chosen_scores, rejected_scores)
    members: defaultdict[str, list[float]] = defaultdict(list)
    for group, outcome in zip(groups, outcomes.tolist(), strict=True):
        members[str(group)].append(outcome)
    return {
        name: GroupAccuracy(wilson(sum(won), len(won)), len(won))
        for name, won in sorted(members.items())
    }


def longer_wins(chosen_lengths: ArrayLike, rejected_lengths: ArrayLike) -> Interval:
    """Accuracy of always preferring the longer response: a reward model's length baseline.

    Args:
        chosen_lengths: [pairs] lengths of the chosen responses, in any unit.
        rejected_lengths: [pairs] lengths of the rejected ones.

    Raises:
        DataError: If there are no pairs.
        ValueError: If the two differ in length.
    """
    return accuracy(chosen_lengths, rejected_lengths)


def win_rate(scores: ArrayLike, opponent_scores: ArrayLike) -> Interval:
    """Share of prompts where one policy's response scores higher; ties count one half.

    Ties have a lower variance than wins and losses, so with many ties Wilson's interval is
    conservative.

    Args:
        scores: [prompts] scores of the evaluated policy.
        opponent_scores: [prompts] scores of the other policy, on the same prompts.

    Raises:
        DataError: If there are no prompts.
        DivergedError: If a score is not finite.
        ValueError: If the two differ in length.
    """
    return accuracy(scores, opponent_scores)


def _outcomes(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Return [pairs] 1 where the first is higher, 0 where the second is, one half at a tie."""
    a = np.asarray(first, dtype=np.float64)
    b = np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"pairs need two equally long vectors, not {a.shape} and {b.shape}")
    if not len(a):
        raise DataError(
            "there are no pairs to compare",
            hint="Raise the held-out share (data.*.held_out) or the number of rows.",
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DivergedError(
            "some scores are not finite numbers",
            hint="The reward model has diverged: train it again with a lower learning rate.",
        )
    return (np.sign(a - b) + 1) / 2
