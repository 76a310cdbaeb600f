"""Reward-model accuracy on slices of comparisons: by annotator, margin or source."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.evaluation.preferences import accuracy, accuracy_by_group
from rlhfctl.results.estimate import GroupAccuracy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

OTHERS = "(others)"
_MOST_GROUPS = 24


def accuracy_by_name(
    chosen_scores: ArrayLike, rejected_scores: ArrayLike, names: Sequence[str]
) -> dict[str, GroupAccuracy]:
    """Return the accuracy per name; the rarest of many names are pooled as others.

    Args:
        chosen_scores: [pairs] scores of the chosen responses.
        rejected_scores: [pairs] scores of the rejected ones.
        names: [pairs] name of each pair, such as its annotator; empty names are left out.

    Raises:
        DivergedError: If a score is not finite.
        ValueError: If the three differ in length.
    """
    named = np.array([bool(name) for name in names], dtype=bool)
    if not named.any():
        return {}
    counts = Counter(name for name in names if name).most_common()
    common = {name for name, _ in counts[:_MOST_GROUPS]}
    groups = [name if name in common else OTHERS for name in names if name]
    return accuracy_by_group(
        np.asarray(chosen_scores)[named], np.asarray(rejected_scores)[named], groups
    )


def accuracy_by_margin(
    chosen_scores: ArrayLike, rejected_scores: ArrayLike, margins: ArrayLike, groups: int = 4
) -> dict[str, GroupAccuracy]:
    """Return the accuracy per quantile group of the annotated preference margin.

    Args:
        chosen_scores: [pairs] scores of the chosen responses.
        rejected_scores: [pairs] scores of the rejected ones.
        margins: [pairs] annotated preference margins.
        groups: Number of quantile groups; fewer if many margins are equal.

    Returns:
        "LEAST to MOST" margin of each group -> its accuracy, in ascending order of margin.

    Raises:
        DivergedError: If a score is not finite.
        ValueError: If the three differ in length.
    """
    chosen, rejected = np.asarray(chosen_scores), np.asarray(rejected_scores)
    values = np.asarray(margins, dtype=np.float64)
    borders = np.unique(np.quantile(values, np.arange(1, groups) / groups))
    which = np.searchsorted(borders, values, side="right")
    accuracies = {}
    for number in np.unique(which):
        mask = which == number
        name = f"{values[mask].min():.4g} to {values[mask].max():.4g}"
        accuracies[name] = GroupAccuracy(accuracy(chosen[mask], rejected[mask]), int(mask.sum()))
    return accuracies
