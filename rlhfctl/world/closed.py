"""Multiple-choice questions of the embedded world, scored by likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.world.questions import sample_question
from rlhfctl.world.streams import stream

if TYPE_CHECKING:
    from collections.abc import Callable

WRONG = 3
"""Maximum number of wrong answers per question."""
_DRAWS_PER_QUESTION = 200


@dataclass(frozen=True)
class ClosedQuestion:
    """A prompt with its possible responses, of which the first is right."""

    kind: str
    prompt: str
    responses: tuple[str, ...]


def closed_questions(n: int, seed: int, accepts: Callable[[str], bool]) -> list[ClosedQuestion]:
    """Draw questions with one right and one to three wrong answers, all in the same sentence.

    Excludes lists, which can be partly right, and questions without an answer in the facts.

    Args:
        n: Number of questions, all with different prompts.
        seed: Seed of a random stream separate from those of the data sets.
        accepts: Filter for prompts, such as prompts that no stage trains on.

    Returns:
        At most `n` questions: sampling stops after 200 draws per requested question.
    """
    rng = stream("closed questions", seed)
    questions: dict[str, ClosedQuestion] = {}
    for _ in range(_DRAWS_PER_QUESTION * n):
        if len(questions) >= n:
            break
        question = sample_question(rng)
        if question.is_list or not question.answerable or len(question.answer) != 1:
            continue
        if question.prompt in questions or not accepts(question.prompt):
            continue
        others = sorted(set(question.distractors) - set(question.answer))
        wrong = rng.sample(others, min(WRONG, len(others)))
        form = rng.choice(question.statements)
        responses = tuple(form.format(answer) for answer in (*question.answer, *wrong))
        questions[question.prompt] = ClosedQuestion(question.kind, question.prompt, responses)
    return list(questions.values())
