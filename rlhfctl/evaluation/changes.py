"""Changes between evaluations of one policy on the same prompts: paired, and tested."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray


def per_prompt(history: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64] | None:
    """Return [evaluations, prompts] of one figure, or None where an evaluation lacks it.

    Args:
        history: Evaluations in their order, each with its metrics of every prompt in `each`.
        key: The figure's name in `each`.

    Raises:
        ValueError: If the evaluations differ in their number of prompts.
    """
    if not history or any(line["each"].get(key) is None for line in history):
        return None
    counts = {len(line["each"][key]) for line in history}
    if len(counts) != 1:
        raise ValueError(f"{key}: evaluations must have the same prompts, not {sorted(counts)}")
    return np.asarray([line["each"][key] for line in history], dtype=np.float64)


def chance_of_rise(differences: ArrayLike) -> float:
    """Probability of a mean at least this high when nothing rises (Student's one-sided t-test).

    A bootstrap is no help here: it has no resamples at the small levels that many looks ask for.
    Where every difference is the same, the t-test has no value and the sign test's stands for it.

    Args:
        differences: [prompts] later less earlier.

    Returns:
        Between 0 and 1; 1 with fewer than two prompts, by which nothing can be told.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return 1.0
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return 0.5 ** len(values) if mean > 0 else 1.0
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    return float(special.stdtr(len(values) - 1, -mean / error))


def chance_of_fall(differences: ArrayLike) -> float:
    """Probability of a mean at least this low when nothing falls; see `chance_of_rise`."""
    return chance_of_rise(-np.asarray(differences, dtype=np.float64))


def best_by_the_others(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return [prompts] the evaluation that is best by the other half of the prompts.

    The best of many noisy means lies above its own true value, so that whatever is compared with
    it on the same prompts seems to have fallen. Here prompts of even index choose for those of
    odd index and the reverse: every prompt is used, and none judges what it has chosen.

    Args:
        values: [evaluations, prompts], at least two prompts.
    """
    prompts = values.shape[1]
    even = np.arange(prompts) % 2 == 0
    best: NDArray[np.intp] = np.where(
        even, values[:, ~even].mean(axis=1).argmax(), values[:, even].mean(axis=1).argmax()
    )
    return best
