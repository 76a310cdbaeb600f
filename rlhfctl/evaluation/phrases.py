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
"""Weight of the prior: as if so many responses had been seen with the pooled shares."""
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

    With y of n on one side and y' of n' on the other, and prior counts a out of a0 that have the
    pooled share ``a = a0 (y + y') / (n + n')``, section 3.4 gives

        delta = log((y + a) / (n + a0 - y - a)) - log((y' + a) / (n' + a0 - y' - a))
        var   = 1/(y + a) + 1/(n + a0 - y - a) + 1/(y' + a) + 1/(n' + a0 - y' - a)
        z     = delta / sqrt(var)

    The paper drops the variance's second and fourth terms because a word is a small part of all;
    a phrase can stand in every response, so they stay here.

    Args:
        counts: [phrases] y.
        total: n, no less than any y.
        other_counts: [phrases] y'.
        other_total: n'.
        prior: a0; above 0.

    Returns:
        delta and z, [phrases]; both 0 for a phrase that everything or nothing has.

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
    known = (expected > 0) & (expected < prior)
    parts = [np.where(known, part, 1.0) for part in (*with_it, *without)]
    delta = np.log(parts[0] / parts[2]) - np.log(parts[1] / parts[3])
    z = delta / np.sqrt(sum(1 / part for part in parts))
    return np.where(known, delta, 0.0), np.where(known, z, 0.0)


def grown_phrases(before: Sequence[str], after: Sequence[str], limit: int = 20) -> list[Phrase]:
    """Return the phrases of one to three words that grew most, those that grew most surely first.

    1. A phrase counts once a response, since one that repeats itself is one event and not many,
       and never runs across a mark.
    2. `log_odds` of having it, with z. Only phrases whose z chance alone would not reach stay:
       beyond the normal quantile for one false phrase in twenty evaluations, shared out among all
       phrases (Bonferroni).
    3. Of phrases that contain one another the surest stays, at a tie the longest, then the first to
       be met: "without any doubt" rather than "any".

    Args:
        before: Responses, such as SFT's.
        after: Responses, such as PPO's.
        limit: Phrases, at most.
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
        (at for at in range(len(names)) if z[at] > least),
        key=lambda at: (-round(float(z[at]), 9), -len(names[at]), at),
    )
    chosen: list[int] = []
    for at in order:
        if len(chosen) == limit:
            break
        if not any(_overlap(names[at], names[other]) for other in chosen):
            chosen.append(at)
    return [
        Phrase(
            " ".join(names[at]),
            float(delta[at]),
            float(z[at]),
            counts[0][names[at]],
            counts[1][names[at]],
        )
        for at in chosen
    ]


def _response_counts(texts: Sequence[str]) -> Counter[tuple[str, ...]]:
    """Return of each phrase how many responses have it, phrases as they are met."""
    found: Counter[tuple[str, ...]] = Counter()
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
        found.update(list(dict.fromkeys(phrases)))
    return found


def _overlap(one: tuple[str, ...], two: tuple[str, ...]) -> bool:
    """Say whether the shorter phrase stands within the longer."""
    short, long = sorted((one, two), key=len)
    return short in ngrams(long, len(short))
