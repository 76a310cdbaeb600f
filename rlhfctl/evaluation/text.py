"""Text metrics of responses: words, n-grams and repetition."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence


def words(text: str) -> list[str]:
    """Return the text's words, split at white space."""
    return text.split()


def ngrams(tokens: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    """Return all n-grams in order; empty with fewer than n tokens.

    Raises:
        ValueError: If n is below 1.
    """
    if n < 1:
        raise ValueError(f"n-grams need n of at least 1, not {n}")
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def repeated_ngram_share(tokens: Sequence[Hashable], n: int) -> float:
    """Share of a response's n-grams that repeat an earlier one: ``1 - distinct / total``.

    Zero when there are fewer than n tokens (Welleck et al. 2020, "seq-rep-n").
    """
    all_ngrams = ngrams(tokens, n)
    return 1 - len(set(all_ngrams)) / len(all_ngrams) if all_ngrams else 0.0


def distinct_ngram_share(responses: Iterable[Sequence[Hashable]], n: int) -> float:
    """Share of distinct n-grams among all n-grams of a set of responses (Li et al. 2016, "distinct-n").

    Near 0 for nearly identical responses; 0 if no response has n tokens.
    """
    all_ngrams = [ngram for response in responses for ngram in ngrams(response, n)]
    return len(set(all_ngrams)) / len(all_ngrams) if all_ngrams else 0.0
