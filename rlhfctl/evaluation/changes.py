"""Paired significance tests between evaluations of one policy on the same prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from rlhfctl.results.training import HeldOutLine


def per_prompt(history: Sequence[HeldOutLine], key: str) -> NDArray[np.float64] | None:
    """Return [evaluations, prompts] of one metric, or None if an evaluation lacks it.

    Args:
        history: Evaluations in order.
        key: Name of the metric in `per_prompt`.

    Raises:
        ValueError: If the evaluations differ in their number of prompts.
    """
    if not history or any(key not in line.per_prompt for line in history):
        return None
    counts = {len(line.per_prompt[key]) for line in history}
    if len(counts) != 1:
        raise ValueError(f"{key}: evaluations must have the same prompts, not {sorted(counts)}")
    return np.asarray([line.per_prompt[key] for line in history], dtype=np.float64)


def p_value_of_rise(differences: ArrayLike) -> float:
    """P-value of a rise of the mean (Student's one-sided t-test).

    A bootstrap has too few resamples at the small levels that repeated testing needs. If all
    differences are equal, the t-test is undefined and the sign test is used.

    Args:
        differences: [prompts] later minus earlier values.

    Returns:
        Between 0 and 1; 1 with fewer than two prompts.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return 1.0
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return 0.5 ** len(values) if mean > 0 else 1.0
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    return float(special.stdtr(len(values) - 1, -mean / error))


def p_value_of_fall(differences: ArrayLike) -> float:
    """P-value of a fall of the mean; see `p_value_of_rise`."""
    return p_value_of_rise(-np.asarray(differences, dtype=np.float64))


def best_by_other_half(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return [prompts] index of the best evaluation according to the other half of the prompts.

    The highest of many noisy means is biased upwards, so a comparison on the same prompts would
    suggest a fall. Even-indexed prompts choose for odd-indexed ones and vice versa
    (cross-fitting), so every prompt is used and none tests its own choice.

    Args:
        values: [evaluations, prompts], at least two prompts.
    """
    prompts = values.shape[1]
    even = np.arange(prompts) % 2 == 0
    best: NDArray[np.intp] = np.where(
        even, values[:, ~even].mean(axis=1).argmax(), values[:, even].mean(axis=1).argmax()
    )
    return best
