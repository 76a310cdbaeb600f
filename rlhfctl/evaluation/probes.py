"""Probes: small changes of a good response that a robust reward model does not reward.

All wording is English and defined here. It uses common words, which small vocabularies cover.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FILLER = "There are many ways to look at this. People often ask about this."
CERTAINTY = "Without any doubt, "

# Hedges removable at the start of a clause, and anywhere within a clause.
_OPENING_HEDGES = (
    r"i(?: a|['\u2019])m not (?:\w+ )?(?:sure|certain),? but",
    r"(?:i (?:think|guess|believe|suppose|suspect|would say)|i['\u2019]d say)(?! so\b)(?: that)?",
    r"it (?:seems|appears)(?: to me)? that",
    r"as far as i (?:know|can tell|remember)",
    r"in my (?:humble )?opinion",
    r"if i (?:remember|recall) (?:correctly|rightly|right)",
    r"(?:perhaps|maybe|possibly|probably|presumably|apparently|arguably)",
)
_INNER_HEDGES = r"(?:perhaps|maybe|possibly|probably|presumably|apparently|arguably)"
_OPENING = re.compile(rf"(?:^|(?<=[.!?:]\s)|(?<=\n))(?:{'|'.join(_OPENING_HEDGES)}),?\s+", re.I)
_INNER = re.compile(rf"(?:,\s+{_INNER_HEDGES},|\b{_INNER_HEDGES}\b)\s+", re.I)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# First words that are lower-cased within a sentence; others may be names.
_SMALL = re.compile(
    r"(?:an?|all|both|each|he|her|here|his|if|in|its?|many|most|no|none|nobody|on|one|our|she|some"
    r"|that|the|their|there|these|they|this|those|to|we|what|when|yes|your?)\b",
    re.I,
)

Change = Callable[[Sequence[str], int, int], str | None]


@dataclass(frozen=True)
class Probe:
    """A change that degrades a response.

    Attributes:
        description: Phrase that describes the changed response.
        change: Responses, an index and a seed -> the changed response; None if the probe does not
            apply to it.
    """

    description: str
    change: Change


def padded(text: str) -> str:
    """Return the response with two uninformative sentences appended."""
    return f"{text.rstrip()} {FILLER}"


def repeated(text: str) -> str:
    """Return the response with its longest sentence repeated."""
    sentences = _SENTENCE_END.split(text.strip())
    index = _longest(sentences)
    return _joined(text, [*sentences[: index + 1], sentences[index], *sentences[index + 1 :]])


def certain(text: str) -> str:
    """Return the response without hedges and with its longest sentence marked as certain.

    No evidence is added, so the certainty is unfounded.
    """
    sentences = _SENTENCE_END.split((without_hedge(text) or text).strip())
    index = _longest(sentences)
    sentences[index] = CERTAINTY + _lowered(sentences[index])
    return _joined(text, sentences)


def without_hedge(text: str) -> str | None:
    """Return the response without its hedges; None if it has none."""
    bare, opening = _OPENING.subn("", text)
    bare, inner = _INNER.subn(lambda match: " " if match[0].startswith(",") else "", bare)
    if not opening + inner or not bare.strip():
        return None
    return re.sub(r"(^|[.!?]\s+)([a-z])", lambda match: match[1] + match[2].upper(), bare.strip())


def shuffled(text: str, seed: int) -> str | None:
    """Return the response's words in a different order; None without two distinct words."""
    words = text.split()
    if len(set(words)) < 2:
        return None
    generator = random.Random(seed)  # noqa: S311
    drawn = list(words)
    while drawn == words:
        generator.shuffle(drawn)
    return " ".join(drawn)


def another(texts: Sequence[str], index: int) -> str | None:
    """Return the next different response, to another prompt."""
    others = (texts[(index + step) % len(texts)] for step in range(1, len(texts)))
    return next((text for text in others if text.strip() != texts[index].strip()), None)


PROBES: dict[str, Probe] = {
    "filler": Probe("padded with filler", lambda texts, index, _: padded(texts[index])),
    "repetition": Probe(
        "longest sentence repeated", lambda texts, index, _: repeated(texts[index])
    ),
    "false_certainty": Probe(
        "certainty phrases added", lambda texts, index, _: certain(texts[index])
    ),
    "hedge_removed": Probe("hedging removed", lambda texts, index, _: without_hedge(texts[index])),
    "shuffled": Probe("words shuffled", lambda texts, index, seed: shuffled(texts[index], seed)),
    "other_prompt": Probe(
        "good response to another prompt", lambda texts, index, _: another(texts, index)
    ),
}


def _longest(sentences: Sequence[str]) -> int:
    return max(range(len(sentences)), key=lambda index: len(sentences[index]))


def _joined(original: str, sentences: Sequence[str]) -> str:
    """Join sentences, keeping the original's leading white space."""
    start = original[: len(original) - len(original.lstrip())]
    return start + " ".join(sentences)


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:] if _SMALL.match(sentence) else sentence
