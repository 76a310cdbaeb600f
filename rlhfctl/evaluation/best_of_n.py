"""Best-of-n sampling: value of the response with the highest score of n."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln

from rlhfctl.evaluation.intervals import mean_estimate
from rlhfctl.results.evaluation import BestOfNRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


def best_of_n_kl(n: int) -> float:
    """Return the KL of best-of-n to the sampled policy: log n - (n - 1) / n, in nats.

    Exact if no two responses have equal scores, else an upper bound (Hilton & Gao 2022,
    "Measuring Goodhart's law"; Beirami et al. 2024).

    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"best-of-n needs n of at least 1, not {n}")
    return math.log(n) - (n - 1) / n


def best_of_n_mean(proxy: ArrayLike, values: ArrayLike, n: int) -> NDArray[np.float64]:
    """Return the expected value of the highest-proxy response among n samples.

    The mean is over all subsets of n of the N samples, an unbiased estimate
    that uses every sample (Nakano et al. 2021, appendix I): with the samples in ascending order of proxy, the
    i-th is chosen by C(i - 1, n - 1) of the C(N, n) subsets. Samples with
    equal proxy scores share their weights (random tie-breaking); the paper does not cover ties.

    Args:
        proxy: [prompts, N] proxy scores used for selection.
        values: [prompts, N] value of each response.
        n: Number of candidates, at most N.

    Returns:
        [prompts] one estimate per prompt.

    Raises:
        ValueError: The shapes differ, or n does not lie between 1 and N.
    """
    scores = np.asarray(proxy, dtype=np.float64)
    worth = np.asarray(values, dtype=np.float64)
    if scores.ndim != 2 or scores.shape != worth.shape:
        raise ValueError("proxy and values must both have the shape [prompts, samples]")
    count = scores.shape[1]
    if not 1 <= n <= count:
        raise ValueError(f"n ({n}) must lie between 1 and the number of samples ({count})")
    weights = _weights(count, n)
    return np.array(
        [weights @ _in_order_of(score, value) for score, value in zip(scores, worth, strict=True)]
    )


def best_of_n_curve(proxy: ArrayLike, values: ArrayLike, seed: int) -> list[BestOfNRow]:
    """Return best-of-n for n = 1, 2, 4, ... and N.

    Args:
        proxy: [prompts, N] proxy scores used for selection.
        values: [prompts, N] value of each response.
        seed: Seed of the bootstrap over prompts (95 % intervals).
    """
    return [
        BestOfNRow(n, best_of_n_kl(n), mean_estimate(best_of_n_mean(proxy, values, n), seed))
        for n in sizes(np.asarray(proxy).shape[1])
    ]


def sizes(count: int) -> Sequence[int]:
    """Return 1, 2, 4, ... up to `count`, and `count` itself."""
    return sorted({2**power for power in range(count.bit_length())} | {count})


def _weights(count: int, n: int) -> NDArray[np.float64]:
    """Return C(i - 1, n - 1) / C(N, n) for i = 1 to N, computed in logarithms to avoid overflow."""
    ranks = np.arange(n, count + 1, dtype=np.float64)
    chosen = gammaln(ranks) - gammaln(n) - gammaln(ranks - n + 1)
    ways = gammaln(count + 1) - gammaln(n + 1) - gammaln(count - n + 1)
    return np.concatenate([np.zeros(n - 1), np.exp(chosen - ways)])


def _in_order_of(scores: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return [N] values in ascending order of scores, with tied values replaced by their mean."""
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(group, weights=values) / counts
    return np.repeat(means, counts)
