"""Annotator agreement: raw and chance-corrected, and majority labels."""

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
    """Return [items, classes] label counts.

    Args:
        item: [labels] item index.
        label: [labels] class index.
        classes: Number of classes.
    """
    items = np.asarray(item, dtype=np.intp)
    counts = np.zeros((int(items.max(initial=-1)) + 1, classes))
    np.add.at(counts, (items, np.asarray(label, dtype=np.intp)), 1.0)
    return counts


def pairwise_agreement(
    counts: NDArray[np.float64], cluster: ArrayLike, seed: int, resamples: int = RESAMPLES
) -> Interval | None:
    """Share of same-item label pairs that are equal; None if no item has two labels.

    The interval is a percentile bootstrap over clusters, whose items are correlated.

    Args:
        counts: [items, classes] of `label_counts`.
        cluster: [items] cluster index of each item, such as its prompt.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
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
    bootstrap over clusters. None if no item has two labels, or if all labels are equal: the
    expected disagreement is then 0.

    Args:
        counts: [items, classes] of `label_counts`.
        cluster: [items] cluster index of each item, such as its prompt.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
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


def fleiss_kappa(
    counts: NDArray[np.float64], cluster: ArrayLike, seed: int, resamples: int = RESAMPLES
) -> Interval | None:
    """Fleiss's kappa for nominal data: (P - P_e) / (1 - P_e), with a percentile bootstrap.

    P is the mean over items of the share of label pairs that are equal, P_e = sum_c p_c^2 with p_c
    the share of class c (Fleiss 1971, "Measuring nominal scale agreement among many raters",
    equations 1 to 7). Fleiss has the same number of labels for every item. Where it varies, items
    of at least two labels count alike, and p_c is the mean of their shares. None if no item has two
    labels, or if all labels are equal.

    Args:
        counts: [items, classes] of `label_counts`.
        cluster: [items] cluster index of each item, such as its prompt.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
    """
    total = counts.sum(axis=1)
    used = total >= 2
    if (counts[used].sum(axis=0) > 0).sum() < 2:
        return None
    pairs = np.maximum(total * (total - 1), 1)
    equal = used * (counts * (counts - 1)).sum(axis=1) / pairs
    shares = used[:, None] * counts / np.maximum(total, 1)[:, None]
    parts = _by_cluster(np.column_stack([equal, used, shares]), cluster)

    def kappa(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        items = sums[:, 1]
        return _beyond_chance(sums[:, 0] / items, ((sums[:, 2:] / items[:, None]) ** 2).sum(axis=1))

    return _bootstrapped(parts, kappa, seed, resamples)


def cohen_kappa(
    first: ArrayLike,
    second: ArrayLike,
    classes: int,
    cluster: ArrayLike,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Cohen's kappa of two annotators: (p_o - p_e) / (1 - p_e), with a percentile bootstrap.

    p_o is the share of items with equal labels, p_e = sum_c p_c q_c with each annotator's own class
    shares (Cohen 1960, "A coefficient of agreement for nominal scales", equation 1). None without
    items, or if both give all items one and the same label.

    Args:
        first: [items] class index that the first annotator gave.
        second: [items] class index that the second gave.
        classes: Number of classes.
        cluster: [items] cluster index of each item, such as its prompt.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
    """
    one, other = np.asarray(first, dtype=np.intp), np.asarray(second, dtype=np.intp)
    if len(np.unique([one, other])) < 2:
        return None
    cells = np.zeros((len(one), classes * classes))
    cells[np.arange(len(one)), one * classes + other] = 1.0
    parts = _by_cluster(cells, cluster)

    def kappa(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        tables = sums.reshape(-1, classes, classes)
        items = tables.sum(axis=(1, 2))
        expected = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / items**2
        return _beyond_chance(np.trace(tables, axis1=1, axis2=2) / items, expected)

    return _bootstrapped(parts, kappa, seed, resamples)


def majority_counts(counts: NDArray[np.float64]) -> tuple[NDArray[np.intp], int]:
    """Return the items per majority class, [classes], and the items without a majority.

    The majority is the label that an item has more often than any other.

    Args:
        counts: [items, classes] of `label_counts`.
    """
    highest = counts.max(axis=1, keepdims=True)
    decided = ((counts == highest).sum(axis=1) == 1) & (highest[:, 0] > 0)
    winners = np.bincount(counts[decided].argmax(axis=1), minlength=counts.shape[1])
    return winners, int(len(counts) - decided.sum())


def _beyond_chance(
    observed: NDArray[np.float64], expected: NDArray[np.float64]
) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((observed - expected) / (1.0 - expected))


def _by_cluster(values: NDArray[np.float64], cluster: ArrayLike) -> NDArray[np.float64]:
    """Sum [items, metrics] within clusters, leaving out clusters whose counts are all 0."""
    _, number = np.unique(np.asarray(cluster), return_inverse=True)
    sums: NDArray[np.float64] = np.zeros((int(number.max()) + 1, values.shape[1]))
    np.add.at(sums, number, values)
    nonempty: NDArray[np.float64] = sums[sums.sum(axis=1) > 0]
    return nonempty


def _bootstrapped(
    parts: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    seed: int,
    resamples: int,
) -> Interval:
    """Return a statistic of the clusters' sums, with its 95 % percentile bootstrap interval."""
    rng = np.random.default_rng(seed)
    size = len(parts)
    estimates: list[NDArray[np.float64]] = []
    step = max(1, _VALUES_AT_ONCE // size)
    for start in range(0, resamples, step):
        draws = min(step, resamples - start)
        weights = rng.multinomial(size, np.full(size, 1.0 / size), size=draws)
        estimates.append(statistic(weights @ parts))
    values = np.concatenate(estimates)
    # Alpha and kappa are undefined for a resample whose labels are all equal.
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Interval(float(statistic(parts.sum(axis=0, keepdims=True))[0]), float(low), float(high))
