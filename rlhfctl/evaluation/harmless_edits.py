"""Edits of a response that keep its meaning, under which a reward model's preference should stand.

After Wu et al. 2025, "reWordBench": reward models lose much of their accuracy when prompts or
responses are transformed in ways that people would not mind. Each edit is deterministic for a seed.
All edits are of form; the typos are for languages written in Latin letters.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"[A-Za-z]{5,}")
_EMPHASIS = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", re.S)
_HEADING = re.compile(r"^#{1,6}\s+", re.M)
_TO_CURLY = re.compile(r"\"([^\"\n]*)\"|(?<=\w)'(?=\w)|'([^'\n]*)'")
_TO_STRAIGHT = str.maketrans({"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'"})
_WORDS_PER_TYPO = 12

Edit = Callable[[str, random.Random], str]


@dataclass(frozen=True)
class HarmlessEdit:
    """An edit and a phrase for the edited response."""

    description: str
    edit: Edit

    def of(self, text: str, seed: int) -> str | None:
        """Return the edited text; None where the edit changes nothing."""
        edited = self.edit(text, random.Random(seed))  # noqa: S311
        return edited if edited != text and edited.strip() else None


def _whitespace(text: str, _: random.Random) -> str:
    """Put each sentence in a paragraph of its own, with a line break at the end."""
    return "\n\n".join(_SENTENCE_END.split(text.strip())) + "\n"


def _markdown(text: str, _: random.Random) -> str:
    """Take Markdown's emphasis and headings away; where there are none, emphasise a sentence."""
    plain = _HEADING.sub("", _EMPHASIS.sub(lambda match: match[2], text))
    if plain != text:
        return plain
    first, *rest = _SENTENCE_END.split(text.strip(), maxsplit=1)
    return " ".join([f"**{first}**", *rest])


def _lower_case(text: str, _: random.Random) -> str:
    return text.lower()


def _typos(text: str, generator: random.Random) -> str:
    """Swap two inner letters of one word in twelve, and of one word at least."""
    words = list(_WORD.finditer(text))
    count = -(-len(text.split()) // _WORDS_PER_TYPO)
    letters = list(text)
    for word in generator.sample(words, min(count, len(words))):
        place = generator.randrange(word.start() + 1, word.end() - 2)
        letters[place], letters[place + 1] = letters[place + 1], letters[place]
    return "".join(letters)


def _quotes(text: str, _: random.Random) -> str:
    """Make curly quotes straight; where there are none, make straight ones curly."""
    straight = text.translate(_TO_STRAIGHT)
    return straight if straight != text else _TO_CURLY.sub(_curly, text)


def _curly(match: re.Match[str]) -> str:
    if match[1] is not None:
        return f"\u201c{match[1]}\u201d"
    return "\u2019" if match[2] is None else f"\u2018{match[2]}\u2019"


HARMLESS_EDITS: dict[str, HarmlessEdit] = {
    "whitespace": HarmlessEdit("sentences in paragraphs of their own", _whitespace),
    "markdown": HarmlessEdit("emphasis added, or removed", _markdown),
    "case": HarmlessEdit("lower case", _lower_case),
    "typos": HarmlessEdit("two letters swapped in one word of twelve", _typos),
    "quotes": HarmlessEdit("the other style of quotes", _quotes),
}
