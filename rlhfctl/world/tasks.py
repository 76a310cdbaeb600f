"""Tasks of the embedded world: each has its questions and writers of responses to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlhfctl.world.questions import sample_question
from rlhfctl.world.responses import render, sample_style
from rlhfctl.world.step_responses import Flaws, render_steps, sample_flaws
from rlhfctl.world.steps import sample_steps

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from rlhfctl.world.question import Question
    from rlhfctl.world.steps import StepsQuestion

_RIGHT_DEMONSTRATIONS = 0.7


@dataclass(frozen=True)
class Task:
    """A task: questions have a `prompt` and a `kind`, and responses are written to them.

    Attributes:
        most_rows: Maximum number of rows of a data set; each has a prompt of its own.
        question: Draws a question.
        response: Writes a response of uniformly random quality, as from a mix of writers or models.
        demonstration: Writes a response of which about 70 % are right.
    """

    most_rows: int
    question: Callable[[Random], Any]
    response: Callable[[Any, Random], str]
    demonstration: Callable[[Any, Random], str]


def _response(question: Question, rng: Random) -> str:
    return render(question, sample_style(rng, rng.random()), rng)


def _demonstration(question: Question, rng: Random) -> str:
    style = sample_style(rng, rng.random())
    if rng.random() < _RIGHT_DEMONSTRATIONS:
        style = replace(style, correctness="right")
    elif style.correctness == "right":
        style = replace(style, correctness="wrong")
    return render(question, style, rng)


def _step_response(question: StepsQuestion, rng: Random) -> str:
    return render_steps(question, sample_flaws(rng, rng.random()), rng)


def _step_demonstration(question: StepsQuestion, rng: Random) -> str:
    flaws = sample_flaws(rng, rng.random())
    if rng.random() < _RIGHT_DEMONSTRATIONS:
        flaws = Flaws(repeats=flaws.repeats, fillers=flaws.fillers)
    elif not (flaws.slip or flaws.skip or flaws.wrong_end):
        flaws = replace(flaws, slip=True)
    return render_steps(question, flaws, rng)


EVERYDAY = Task(50_000, sample_question, _response, _demonstration)
"""Questions about facts in the prompt; responses of some seven to forty tokens."""
STEPS = Task(20_000, sample_steps, _step_response, _step_demonstration)
"""Counts that grow day by day; responses of 36 to 80 tokens, a sentence per day. Of its prompts there
are 50,880."""
