"""Length bias of a reward model (Singhal et al. 2023, "A Long Way to Go")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from rlhfctl.evaluation.intervals import Interval
from rlhfctl.evaluation.preferences import accuracy, longer_wins
from rlhfctl.results.estimate import GroupAccuracy
from rlhfctl.results.evaluation import LengthBias

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import ArrayLike, NDArray

EQUAL_LENGTHS = 0.05
"""Largest relative difference, as a share of the longer length, of two equal lengths."""

_RESAMPLES = 5_000
_RESAMPLED_VALUES_AT_ONCE = 1_000_000


def length_metrics(
    chosen_scores: ArrayLike,
    rejected_scores: ArrayLike,
    chosen_lengths: ArrayLike,
    rejected_lengths: ArrayLike,
    prompts: Sequence[Hashable],
    seed: int,
) -> LengthBias:
    """Return the length-bias metrics; fields are None for groups without pairs.

    - `longer_wins`, `shorter_wins`: accuracy of always preferring the longer or the
      shorter response;
    - `equal_length`: the model's accuracy on pairs of equal length;
    - `longer_chosen`, `shorter_chosen`: the model's accuracy where the chosen response is the longer
      or the shorter one: far apart for a length-biased model;
    - `score_length_correlation`, within prompts, with `_low` and `_high`.

    Args:
        chosen_scores: [pairs] scores of the chosen responses.
        rejected_scores: [pairs] scores of the rejected ones.
        chosen_lengths: [pairs] lengths of the chosen responses, in any unit.
        rejected_lengths: [pairs] lengths of the rejected ones.
        prompts: [pairs] prompt identifier of each pair.
        seed: Seed of the bootstrap.

    Raises:
        DataError: If there are no pairs.
        DivergedError: If a score is not finite.
        ValueError: If the arguments differ in length.
    """
    chosen, rejected = np.asarray(chosen_scores, float), np.asarray(rejected_scores, float)
    long, short = np.asarray(chosen_lengths, float), np.asarray(rejected_lengths, float)
    pairs = len(long)
    equal = np.abs(long - short) <= EQUAL_LENGTHS * np.maximum(long, short)

    def among(mask: NDArray[np.bool_]) -> GroupAccuracy | None:
        if not mask.any():
            return None
        return GroupAccuracy(accuracy(chosen[mask], rejected[mask]), int(mask.sum()))

    return LengthBias(
        longer_wins=GroupAccuracy(longer_wins(long, short), pairs),
        shorter_wins=GroupAccuracy(longer_wins(short, long), pairs),
        equal_length=among(equal),
        longer_chosen=among(~equal & (long > short)),
        shorter_chosen=among(~equal & (long < short)),
        score_length_correlation=within_prompt_correlation(
            np.concatenate((chosen, rejected)),
            np.concatenate((long, short)),
            [*prompts, *prompts],
            seed,
        ),
    )


def within_prompt_correlation(
    scores: ArrayLike, lengths: ArrayLike, prompts: Sequence[Hashable], seed: int
) -> Interval | None:
    """Return the correlation of score with length among responses to the same prompt.

    Both are centred on their prompt's mean, so prompts that need long answers do not count as
    length bias. The interval is a 95 % percentile bootstrap over prompts.

    Args:
        scores: [responses] scores.
        lengths: [responses] lengths, in any unit.
        prompts: [responses] prompt identifier of each response.
        seed: Seed of the bootstrap.

    Returns:
        None if lengths or scores vary within fewer than two prompts.

    Raises:
        ValueError: If the three differ in length.
    """
    names = {name: number for number, name in enumerate(dict.fromkeys(prompts))}
    groups = np.array([names[name] for name in prompts], dtype=np.int64)
    x = _centred(np.asarray(lengths, dtype=np.float64), groups)
    y = _centred(np.asarray(scores, dtype=np.float64), groups)
    xy, xx, yy = (_summed(product, groups) for product in (x * y, x * x, y * y))
    if (xx > 0).sum() < 2 or (yy > 0).sum() < 2:
        return None
    estimate = float(_correlation(xy, xx, yy))
    result = stats.bootstrap(
        (xy, xx, yy),
        _correlation,
        n_resamples=_RESAMPLES,
        batch=max(1, _RESAMPLED_VALUES_AT_ONCE // len(xy)),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = map(float, result.confidence_interval)
    return Interval(estimate, low, high)


def _correlation(
    xy: NDArray[np.float64], xx: NDArray[np.float64], yy: NDArray[np.float64], axis: int = -1
) -> NDArray[np.float64]:
    product: NDArray[np.float64] = xx.sum(axis=axis) * yy.sum(axis=axis)
    nonzero = product > 0
    sums: NDArray[np.float64] = xy.sum(axis=axis)
    return np.where(nonzero, sums / np.sqrt(np.where(nonzero, product, 1.0)), 0.0)


def _centred(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    means = _summed(values, groups) / np.bincount(groups)
    return values - means[groups]


def _summed(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.bincount(groups, values).astype(np.float64)
