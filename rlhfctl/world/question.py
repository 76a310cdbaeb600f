"""What a question is, and a family of prompts that ask alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

Slots = dict[str, str]


@dataclass(frozen=True)
class Question:
    """One question and all that is needed to answer it, well or badly, and to judge an answer.

    Attributes:
        kind: name of the kind, one of `KINDS`.
        prompt: the text a user sends.
        answer: the right answer, item by item; empty when the facts do not tell.
        candidates: every text of the answer's type; a response's claim is what it names of these.
        distractors: plausible wrong answers, used to write wrong responses.
        statements: sentences that give the answer, with `{}` where it goes.
        quotable: phrases a response may take from the prompt without claiming what they name.
    """

    kind: str
    prompt: str
    answer: tuple[str, ...]
    candidates: tuple[str, ...]
    distractors: tuple[str, ...]
    statements: tuple[str, ...]
    quotable: tuple[str, ...] = ()

    @property
    def answerable(self) -> bool:
        """Whether the prompt holds what is asked for."""
        return bool(self.answer)

    @property
    def is_list(self) -> bool:
        """Whether the answer is a list, which can be right in part."""
        return self.kind in LIST_KINDS


@dataclass(frozen=True)
class Family:
    """Prompts of one shape: `draw` fills a template's slots, `build` makes the question."""

    templates: tuple[str, ...]
    draw: Callable[[Random], Slots]
    build: Callable[[str, Slots], Question | None]


LIST_KINDS = frozenset({"order", "repeat"})
GENERAL_STATEMENTS = ("The answer is {}.", "It is {}.", "{}.")
