"""Closed questions: a prompt with one right answer among several, for scoring by likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.world.questions import sample_question
from rlhfctl.world.streams import stream

if TYPE_CHECKING:
    from collections.abc import Callable

WRONG = 3
"""Wrong answers beside the right one, at most."""
_DRAWS_A_QUESTION = 200


@dataclass(frozen=True)
class ClosedQuestion:
    """A prompt with its possible responses; the first is right."""

    kind: str
    prompt: str
    responses: tuple[str, ...]


def closed_questions(n: int, seed: int, wanted: Callable[[str], bool]) -> list[ClosedQuestion]:
    """Draw questions with one right and one to three wrong answers, all in the same sentence.

    Lists, which can be right in part, and questions that the facts do not answer are left out.

    Args:
        n: Questions, each with a prompt of its own.
        seed: Of a stream that no data set draws from.
        wanted: Whether a prompt may serve, such as one that no stage trains on.

    Returns:
        As many as were found in 200 draws each, which is fewer where hardly a prompt may serve.
    """
    rng = stream("closed questions", seed)
    found: dict[str, ClosedQuestion] = {}
    for _ in range(_DRAWS_A_QUESTION * n):
        if len(found) >= n:
            break
        question = sample_question(rng)
        if question.is_list or not question.answerable or len(question.answer) != 1:
            continue
        if question.prompt in found or not wanted(question.prompt):
            continue
        others = sorted(set(question.distractors) - set(question.answer))
        wrong = rng.sample(others, min(WRONG, len(others)))
        form = rng.choice(question.statements)
        responses = tuple(form.format(answer) for answer in (*question.answer, *wrong))
        found[question.prompt] = ClosedQuestion(question.kind, question.prompt, responses)
    return list(found.values())
