"""Questions of the embedded world, and families of prompts with the same templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

Slots = dict[str, str]


@dataclass(frozen=True)
class Question:
    """A question with everything needed to write right or wrong responses and to score them.

    Attributes:
        kind: Kind of question, one of `KINDS`.
        prompt: Text of the user's turn.
        answer: Items of the right answer; empty if the facts lack the answer.
        candidates: All texts of the answer's type; those in a response are its claims.
        distractors: Plausible wrong answers, used in wrong responses.
        statements: Sentence templates with `{}` for the answer.
        quotable: Phrases of the prompt that do not count as claims in a response.
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
        """True if the prompt determines the answer."""
        return bool(self.answer)

    @property
    def is_list(self) -> bool:
        """True if the answer is a list, which can be partly right."""
        return self.kind in LIST_KINDS


@dataclass(frozen=True)
class Family:
    """Prompt templates: `draw` samples their slots, `build` turns slots into a question."""

    templates: tuple[str, ...]
    draw: Callable[[Random], Slots]
    build: Callable[[str, Slots], Question | None]


LIST_KINDS = frozenset({"order", "repeat"})
GENERAL_STATEMENTS = ("The answer is {}.", "It is {}.", "{}.")
