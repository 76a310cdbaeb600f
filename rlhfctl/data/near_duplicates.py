"""Prompts that are nearly the same, by MinHash and locality-sensitive hashing (datasketch).

Candidates are those of Broder (1997) with bands as datasketch chooses them for the threshold. The
similarity of each is then computed, so none below the threshold is reported. A pair at the
threshold may be missed; far above it hardly one is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_PERMUTATIONS = 128
_WORDS = 3


@dataclass(frozen=True)
class Near:
    """Two prompts that are nearly the same.

    Attributes:
        similarity: Jaccard similarity of their shingles of three words.
        first: Text of the one, of the training rows if the two are of different sets.
        second: Text of the other.
    """

    similarity: float
    first: str
    second: str


def shingles(text: str) -> frozenset[str]:
    """Return each sequence of three words of a text in lower case; of a shorter text, all words."""
    words = re.findall(r"\w+", text.casefold())
    count = max(1, len(words) - _WORDS + 1)
    return frozenset(" ".join(words[start : start + _WORDS]) for start in range(count))


class NearIndex:
    """Texts to compare others with.

    Args:
        threshold: Least similarity of a pair.
    """

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHashLSH

        self._threshold = threshold
        self._lsh: Any = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)
        self._texts: list[str] = []

    def add(self, text: str) -> None:
        """Add a text."""
        self._lsh.insert(len(self._texts), _signature(text))
        self._texts.append(text)

    def near(self, text: str) -> Iterator[Near]:
        """Yield each text that was added and is as similar as the threshold."""
        own = shingles(text)
        for number in sorted(self._lsh.query(_signature(text))):
            other = shingles(self._texts[number])
            similarity = len(own & other) / len(own | other)
            if similarity >= self._threshold:
                yield Near(similarity, self._texts[number], text)


def pairs_within(texts: Iterable[str], threshold: float) -> list[Near]:
    """Return the pairs of texts that are nearly the same, the most similar first."""
    index = NearIndex(threshold)
    pairs: list[Near] = []
    for text in texts:
        pairs += index.near(text)
        index.add(text)
    return _ordered(pairs)


def pairs_between(texts: Sequence[str], others: Iterable[str], threshold: float) -> list[Near]:
    """Return the pairs of a text and one of the others, the most similar first."""
    index = NearIndex(threshold)
    for text in texts:
        index.add(text)
    return _ordered([pair for other in others for pair in index.near(other)])


def _ordered(pairs: list[Near]) -> list[Near]:
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def _signature(text: str) -> Any:
    from datasketch import MinHash

    signature = MinHash(num_perm=_PERMUTATIONS, seed=1)
    signature.update_batch(
        [part.encode("utf-8", "surrogatepass") for part in sorted(shingles(text))]
    )
    return signature
