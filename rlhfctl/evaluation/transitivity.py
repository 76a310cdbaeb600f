"""Whether preferences among responses to one prompt can be put in an order."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.evaluation.intervals import Interval

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

_RESAMPLES = 2_000


@dataclass(frozen=True)
class Intransitivity:
    """The cycles found.

    Attributes:
        share: Chance that three labels, one drawn of each pair of a triple, run in a circle.
        triples: Triples all of whose three pairs were compared.
    """

    share: Interval
    triples: int


def intransitive_triples(
    comparisons: Sequence[tuple[Hashable, Hashable, Hashable]],
    first_shares: Sequence[float],
    seed: int,
) -> Intransitivity | None:
    """Count the circles A > B > C > A; None where no three items were compared with one another.

    Of vote shares p the chance of a circle is p_ab p_bc p_ca + (1 - p_ab)(1 - p_bc)(1 - p_ca). The
    interval is a percentile bootstrap over groups.

    Args:
        comparisons: [pairs] group (such as the prompt), first and second item.
        first_shares: [pairs] share of the labels that prefer the first; ties count a half.
        seed: Of the resampling.
    """
    edges: defaultdict[Hashable, dict[tuple[Hashable, Hashable], float]] = defaultdict(dict)
    for (group, first, second), share in zip(comparisons, first_shares, strict=True):
        edges[group][first, second] = share
        edges[group][second, first] = 1.0 - share
    found = np.array([counted for known in edges.values() if (counted := _circles(known))[1]])
    if not len(found):
        return None
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(found), np.full(len(found), 1 / len(found)), size=_RESAMPLES)
    sums = weights @ found
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    circles, triples = found.sum(axis=0)
    return Intransitivity(Interval(circles / triples, float(low), float(high)), int(triples))


def expected_by_noise(agreement: float) -> float:
    """Return the share of intransitive triples that noise alone makes of a true order: (1 - q) / 2.

    If every label contradicts the order with chance e, three run in a circle with chance
    (1 - e)^2 e + e^2 (1 - e) = e (1 - e), and two labels of one pair agree at rate
    q = 1 - 2 e (1 - e). Where pairs differ in difficulty, a little more than this is noise too.
    """
    return (1.0 - agreement) / 2.0


def _circles(known: Mapping[tuple[Hashable, Hashable], float]) -> tuple[float, int]:
    """Return the expected circles of one group and the number of its triples."""
    beside: defaultdict[Hashable, set[Hashable]] = defaultdict(set)
    for first, second in known:
        beside[first].add(second)
    order = {item: place for place, item in enumerate(beside)}
    circles, triples = 0.0, 0
    for a, place in order.items():
        later = [item for item in beside[a] if order[item] > place]
        for b, c in combinations(sorted(later, key=order.__getitem__), 2):
            if (b, c) in known:
                forth = known[a, b] * known[b, c] * known[c, a]
                back = known[b, a] * known[c, b] * known[a, c]
                circles += forth + back
                triples += 1
    return circles, triples
