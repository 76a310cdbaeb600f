"""How often annotators agree: as it is, and beyond what chance alone would give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.evaluation.intervals import Interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2_000
_VALUES_AT_ONCE = 4_000_000


def label_counts(item: ArrayLike, label: ArrayLike, classes: int) -> NDArray[np.float64]:
    """Return [items, classes]: how often each item was given each label.

    Args:
        item: [labels] number of the item, from 0.
        label: [labels] number of the class, from 0.
        classes: How many classes there are.
    """
    items = np.asarray(item, dtype=np.intp)
    counts = np.zeros((int(items.max(initial=-1)) + 1, classes))
    np.add.at(counts, (items, np.asarray(label, dtype=np.intp)), 1.0)
    return counts


def pairwise_agreement(
    counts: NDArray[np.float64], cluster: ArrayLike, seed: int, resamples: int = RESAMPLES
) -> Interval | None:
    """Share of pairs of labels of one item that are equal; None where no item has two.

    The interval is a percentile bootstrap over clusters, whose items rise and fall together.

    Args:
        counts: [items, classes] of `label_counts`.
        cluster: [items] number of each item's cluster, such as its prompt.
        seed: Of the resampling.
        resamples: How often clusters are drawn again.
    """
    total = counts.sum(axis=1)
    pairs = total * (total - 1) / 2
    equal = (counts * (counts - 1) / 2).sum(axis=1)
    if not pairs.sum():
        return None
    parts = _by_cluster(np.stack([equal, pairs], axis=1), cluster)

    def share(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(sums[:, 0] / sums[:, 1])

    return _bootstrapped(parts, share, seed, resamples)


def krippendorff_alpha(
    counts: NDArray[np.float64], cluster: ArrayLike, seed: int, resamples: int = RESAMPLES
) -> Interval | None:
    """Krippendorff's alpha for nominal data, any number of annotators, labels may be missing.

    1 - (n - 1) sum_{c != k} o_ck / sum_{c != k} n_c n_k over items of at least two labels
    (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C), with a percentile
    bootstrap over clusters. None where no item has two labels, or all labels are the same: then
    there is no disagreement to expect.

    Args:
        counts: [items, classes] of `label_counts`.
        cluster: [items] number of each item's cluster, such as its prompt.
        seed: Of the resampling.
        resamples: How often clusters are drawn again.
    """
    total = counts.sum(axis=1)
    used = counts * (total >= 2)[:, None]
    differing = (used.sum(axis=1) ** 2 - (used**2).sum(axis=1)) / np.maximum(total - 1, 1)
    if (used.sum(axis=0) > 0).sum() < 2:
        return None
    parts = _by_cluster(np.concatenate([differing[:, None], used], axis=1), cluster)

    def alpha(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        classes = sums[:, 1:]
        n = classes.sum(axis=1)
        expected = n**2 - (classes**2).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(1.0 - (n - 1) * sums[:, 0] / expected)

    return _bootstrapped(parts, alpha, seed, resamples)


def _by_cluster(values: NDArray[np.float64], cluster: ArrayLike) -> NDArray[np.float64]:
    """Sum [items, metrics] within clusters, leaving out clusters in which nothing is counted."""
    _, number = np.unique(np.asarray(cluster), return_inverse=True)
    sums: NDArray[np.float64] = np.zeros((int(number.max()) + 1, values.shape[1]))
    np.add.at(sums, number, values)
    kept: NDArray[np.float64] = sums[sums.sum(axis=1) > 0]
    return kept


def _bootstrapped(
    parts: NDArray[np.float64],
    figure: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    seed: int,
    resamples: int,
) -> Interval:
    """Return a figure of the clusters' sums, and the middle 95 % of it over drawn clusters."""
    rng = np.random.default_rng(seed)
    size = len(parts)
    found: list[NDArray[np.float64]] = []
    step = max(1, _VALUES_AT_ONCE // size)
    for start in range(0, resamples, step):
        draws = min(step, resamples - start)
        weights = rng.multinomial(size, np.full(size, 1.0 / size), size=draws)
        found.append(figure(weights @ parts))
    values = np.concatenate(found)
    # A resample in which all labels are the same has no alpha.
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Interval(float(figure(parts.sum(axis=0, keepdims=True))[0]), float(low), float(high))
