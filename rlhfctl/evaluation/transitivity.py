"""Intransitive preferences among responses to one prompt."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.evaluation.intervals import Interval

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from numpy.typing import NDArray

_RESAMPLES = 2_000


@dataclass(frozen=True)
class Intransitivity:
    """Share of cyclic triples.

    Attributes:
        share: Probability that three labels, one drawn per pair of a triple, form a cycle.
        triples: Number of triples whose three pairs were all compared.
    """

    share: Interval
    triples: int


def intransitive_triples(
    comparisons: Sequence[tuple[Hashable, Hashable, Hashable]],
    first_shares: Sequence[float],
    seed: int,
) -> Intransitivity | None:
    """Count the cycles A > B > C > A; None without a fully compared triple.

    With vote shares p the probability of a cycle is p_ab p_bc p_ca + (1 - p_ab)(1 - p_bc)(1 - p_ca). The
    interval is a percentile bootstrap over groups.

    Args:
        comparisons: [pairs] group (such as the prompt), first and second item.
        first_shares: [pairs] share of labels that prefer the first; ties count one half.
        seed: Seed of the bootstrap.
    """
    edges: defaultdict[Hashable, dict[tuple[Hashable, Hashable], float]] = defaultdict(dict)
    for (group, first, second), share in zip(comparisons, first_shares, strict=True):
        edges[group][first, second] = share
        edges[group][second, first] = 1.0 - share
    counts = np.array([count for shares in edges.values() if (count := _cycles(shares))[1]])
    if not len(counts):
        return None
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=_RESAMPLES)
    sums = weights @ counts
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    cycles, triples = counts.sum(axis=0)
    return Intransitivity(Interval(cycles / triples, float(low), float(high)), int(triples))


def agreement_with_ties_halved(
    strict: NDArray[np.float64], labels: NDArray[np.float64]
) -> float | None:
    """Return the agreement of two labels of an item if a coin decided every tie.

    Equal strict labels agree, and two labels of which one is a tie do so by one half.

    Args:
        strict: [items, 2] labels for the first and the second response.
        labels: [items] all labels, with ties.

    Returns:
        The agreement; None if no item has two labels.
    """
    pairs = (labels * (labels - 1) / 2).sum()
    decided = strict.sum(axis=1)
    equal = (strict * (strict - 1) / 2).sum()
    tied = pairs - (decided * (decided - 1) / 2).sum()
    return float((equal + 0.5 * tied) / pairs) if pairs else None


def expected_by_noise(agreement: float) -> float:
    """Return the share of intransitive triples expected from label noise alone: (1 - q) / 2.

    If labels contradict a true order with probability e, three form a cycle with probability
    (1 - e)^2 e + e^2 (1 - e) = e (1 - e), and two labels of one pair agree at rate
    q = 1 - 2 e (1 - e). A tie, which counts one half, is decided by a coin
    (`agreement_with_ties_halved`). If difficulty varies between pairs, noise gives slightly more cycles.
    """
    return (1.0 - agreement) / 2.0


def _cycles(shares: Mapping[tuple[Hashable, Hashable], float]) -> tuple[float, int]:
    """Return one group's expected number of cycles and its number of triples."""
    beside: defaultdict[Hashable, set[Hashable]] = defaultdict(set)
    for first, second in shares:
        beside[first].add(second)
    order = {item: place for place, item in enumerate(beside)}
    cycles, triples = 0.0, 0
    for a, place in order.items():
        later = [item for item in beside[a] if order[item] > place]
        for b, c in combinations(sorted(later, key=order.__getitem__), 2):
            if (b, c) in shares:
                forth = shares[a, b] * shares[b, c] * shares[c, a]
                back = shares[b, a] * shares[c, b] * shares[a, c]
                cycles += forth + back
                triples += 1
    return cycles, triples
