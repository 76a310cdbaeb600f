"""Style of a policy's responses: diversity, repetition, length, entropy and markers."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhfctl.evaluation.intervals import Interval, mean_estimate, wilson
from rlhfctl.evaluation.markers import certainty, hedging
from rlhfctl.evaluation.phrases import grown_phrases
from rlhfctl.evaluation.text import distinct_ngram_share, ngrams, repeated_ngram_share, words
from rlhfctl.results.evaluation import Drift, LengthDistribution, StyleMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from rlhfctl.evaluation.policies import Responses

_ORDERS = (1, 2, 3, 4)
_NO_MATCH = 0.1
"""Replaces a count of 0 in a BLEU precision."""


def self_bleu(responses: Sequence[Sequence[Hashable]]) -> float:
    """Mean BLEU-4 of each response with all the others as references (Zhu et al. 2018).

    Near 1 for a policy with nearly identical responses. BLEU is sentence-level (Papineni et al.
    2002): counts are clipped to the largest in any one reference, and the brevity penalty uses the
    reference of closest length (the shorter at a tie). A precision without any match counts 0.1
    matches (Chen and Cherry 2014, method 1). A response without words, or with none in common with
    the others, has BLEU 0. Equal to nltk's `sentence_bleu` with `SmoothingFunction().method1`, as
    in Texygen's Self-BLEU. Time is linear in the number of responses.

    Args:
        responses: Two or more tokenised responses.

    Raises:
        ValueError: If there are fewer than two.
    """
    if len(responses) < 2:
        raise ValueError("self-BLEU needs at least two responses")
    lengths = np.array([len(response) for response in responses])
    matches = np.zeros((len(responses), len(_ORDERS)))
    for column, n in enumerate(_ORDERS):
        counts = [Counter(ngrams(response, n)) for response in responses]
        best = _two_best(counts)
        for row, own in enumerate(counts):
            matches[row, column] = sum(
                min(count, best[ngram][1] if best[ngram][2] == row else best[ngram][0])
                for ngram, count in own.items()
            )
    totals = np.maximum(lengths[:, None] - np.array(_ORDERS)[None, :] + 1, 1)
    precision = np.where(matches > 0, matches, _NO_MATCH) / totals
    scores = np.exp(np.log(precision).mean(axis=1)) * _brevity(lengths)
    return float(np.where(matches[:, 0] > 0, scores, 0.0).mean())


def _two_best(counts: Sequence[Counter[Any]]) -> dict[Any, tuple[int, int, int]]:
    """Return the two largest counts of each n-gram and the row index of the largest."""
    best: dict[Any, tuple[int, int, int]] = {}
    for row, own in enumerate(counts):
        for ngram, count in own.items():
            first, second, owner = best.get(ngram, (0, 0, -1))
            if count > first:
                best[ngram] = (count, first, row)
            elif count > second:
                best[ngram] = (first, count, owner)
    return best


def _brevity(lengths: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, Any]:
    """Return [responses] BLEU's brevity penalty, against the closest length among the others."""
    penalties = []
    for row, length in enumerate(lengths.tolist()):
        others = np.delete(lengths, row).tolist()
        closest = min(others, key=lambda other: (abs(other - length), other))
        short = length < closest
        penalties.append(math.exp(1 - closest / length) if short and length else float(not short))
    return np.array(penalties)


def drift(policies: Mapping[str, Responses], ngram: int, seed: int) -> Drift:
    """Return each policy's style and, if both were evaluated, phrases more frequent under PPO.

    Args:
        policies: `sft`, `ppo` or both, on the same prompts.
        ngram: Length of the n-grams whose repetition is counted.
        seed: Seed of the bootstrap.
    """
    styles = {name: _style(responses, ngram, seed) for name, responses in policies.items()}
    phrases = None
    if "sft" in policies and "ppo" in policies:
        phrases = grown_phrases(policies["sft"].texts, policies["ppo"].texts)
    return Drift(**styles, phrases=phrases)


def _style(responses: Responses, ngram: int, seed: int) -> StyleMetrics:
    lengths = np.asarray(responses.lengths, dtype=np.float64)
    split = [words(text) for text in responses.texts]
    percentiles = np.percentile(lengths, (5, 25, 50, 75, 95)).tolist()
    entropy = responses.entropy
    return StyleMetrics(
        kl_per_token=mean_estimate(np.asarray(responses.kl) / lengths, seed),
        entropy=None if entropy is None else mean_estimate(entropy, seed),
        length=LengthDistribution(float(lengths.mean()), *percentiles),
        distinct_1=distinct_ngram_share(split, 1),
        distinct_2=distinct_ngram_share(split, 2),
        distinct_3=distinct_ngram_share(split, 3),
        self_bleu=self_bleu(split) if len(split) > 1 else None,
        repeated_ngrams=float(np.mean([repeated_ngram_share(text, ngram) for text in split])),
        truncated=1 - float(np.mean(np.asarray(responses.ended, dtype=np.float64))),
        hedging=_share(hedging, responses.texts),
        certainty=_share(certainty, responses.texts),
    )


def _share(marker: Callable[[str], bool], texts: Sequence[str]) -> Interval:
    return wilson(sum(map(marker, texts)), len(texts))
