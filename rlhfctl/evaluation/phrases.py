"""Phrases significantly more frequent in one set of responses than in another."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from rlhfctl.evaluation.text import ngrams
from rlhfctl.results.evaluation import Phrase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

PRIOR_RESPONSES = 50.0
"""Prior weight: number of pseudo-responses with the pooled shares."""
LONGEST = 3
_CONFIDENCE = 0.95


def log_odds(
    counts: ArrayLike,
    total: float,
    other_counts: ArrayLike,
    other_total: float,
    prior: float = PRIOR_RESPONSES,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log odds ratios with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008).

    With counts y of n and y' of n', and prior counts a of a0 with the pooled share ``a = a0 (y + y') / (n + n')``, section 3.4 gives

        delta = log((y + a) / (n + a0 - y - a)) - log((y' + a) / (n' + a0 - y' - a))
        var   = 1/(y + a) + 1/(n + a0 - y - a) + 1/(y' + a) + 1/(n' + a0 - y' - a)
        z     = delta / sqrt(var)

    The paper drops the second and fourth terms of the variance because a word is a small share of
    all words. A phrase can occur in every response, so both terms stay.

    Args:
        counts: [phrases] y.
        total: n, at least the largest y.
        other_counts: [phrases] y'.
        other_total: n'.
        prior: a0; above 0.

    Returns:
        delta and z, [phrases]; both 0 for a phrase in all responses or in none.

    Raises:
        ValueError: If a count exceeds its total, or prior is not above 0.
    """
    here, there = np.asarray(counts, dtype=np.float64), np.asarray(other_counts, dtype=np.float64)
    if not prior > 0:
        raise ValueError(f"the prior's weight must be above 0, not {prior}")
    if (here < 0).any() or (here > total).any() or (there < 0).any() or (there > other_total).any():
        raise ValueError("counts must lie between 0 and their totals")
    expected = prior * (here + there) / (total + other_total)
    with_it = here + expected, there + expected
    without = total + prior - with_it[0], other_total + prior - with_it[1]
    defined = (expected > 0) & (expected < prior)
    parts = [np.where(defined, part, 1.0) for part in (*with_it, *without)]
    delta = np.log(parts[0] / parts[2]) - np.log(parts[1] / parts[3])
    z = delta / np.sqrt(sum(1 / part for part in parts))
    return np.where(defined, delta, 0.0), np.where(defined, z, 0.0)


def grown_phrases(before: Sequence[str], after: Sequence[str], limit: int = 20) -> list[Phrase]:
    """Return the phrases of one to three words that grew significantly, highest z first.

    1. A phrase counts once per response and does not cross punctuation.
    2. Phrases are kept if the z of `log_odds` exceeds the one-sided normal quantile at a
       family-wise level of 5 % (Bonferroni over all phrases).
    3. Of overlapping phrases the one with the highest z stays, at a tie the longest, then the
       first: "without any doubt" rather than "any".

    Args:
        before: Responses, such as SFT's.
        after: Responses, such as PPO's.
        limit: Maximum number of phrases.
    """
    if not before or not after:
        return []
    counts = _response_counts(before), _response_counts(after)
    names = list(dict.fromkeys([*counts[1], *counts[0]]))
    if not names:
        return []
    delta, z = log_odds(
        [counts[1][name] for name in names],
        len(after),
        [counts[0][name] for name in names],
        len(before),
    )
    least = float(stats.norm.isf((1 - _CONFIDENCE) / len(names)))
    order = sorted(
        (index for index in range(len(names)) if z[index] > least),
        key=lambda index: (-round(float(z[index]), 9), -len(names[index]), index),
    )
    chosen: list[int] = []
    for index in order:
        if len(chosen) == limit:
            break
        if not any(_overlap(names[index], names[other]) for other in chosen):
            chosen.append(index)
    return [
        Phrase(
            " ".join(names[index]),
            float(delta[index]),
            float(z[index]),
            counts[0][names[index]],
            counts[1][names[index]],
        )
        for index in chosen
    ]


def _response_counts(texts: Sequence[str]) -> Counter[tuple[str, ...]]:
    """Return the number of responses per phrase, in order of first occurrence."""
    response_counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        clauses = [
            re.findall(r"[^\W_]+(?:['\u2019][^\W_]+)*", part)
            for part in re.split(r"[^\w\s'\u2019-]+|\n", text.casefold())
        ]
        phrases = (
            tuple(map(str, phrase))
            for n in range(1, LONGEST + 1)
            for words in clauses
            for phrase in ngrams(words, n)
        )
        response_counts.update(list(dict.fromkeys(phrases)))
    return response_counts


def _overlap(one: tuple[str, ...], two: tuple[str, ...]) -> bool:
    """Return True if the longer phrase contains the shorter."""
    short, long = sorted((one, two), key=len)
    return short in ngrams(long, len(short))
