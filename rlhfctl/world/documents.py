"""The text a world model is pretrained on: exchanges, plain facts, and exchanges with a verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlhfctl.world.lexicon import CITIES, COLOURS, GOODS, LIST_WORDS, NAMES, NUMBERS, THINGS
from rlhfctl.world.questions import ADJECTIVES, Question, sample_question
from rlhfctl.world.responses import Correctness, render, sample_style

if TYPE_CHECKING:
    from random import Random

USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
CHECK = "Is that right?"
FACT_KINDS = ("sum", "difference", "calendar", "opposite")
SHARE_MARKED, SHARE_FACTS = 0.4, 0.05
SHARE_RIGHT = 0.9
ALL_WORDS = (*NAMES, *CITIES, *COLOURS, *THINGS, *GOODS, *LIST_WORDS, *NUMBERS, *ADJECTIVES)


@dataclass(frozen=True)
class Segment:
    """A stretch of a document; the pretraining loss skips what is not `learnt`."""

    text: str
    learnt: bool = True


Document = tuple[Segment, ...]


def verdict(question: Question, right: bool) -> str:
    """What a knowing user says of a response: yes, or no with the right answer."""
    if right:
        return "Yes."
    if not question.answerable:
        return "No, the facts do not tell."
    return f"No, it is {', '.join(question.answer)}."


def _response(rng: Random, question: Question, right: bool) -> str:
    style = sample_style(rng, rng.choice((1.0, rng.random())))
    wrong: Correctness = "partial" if question.is_list and rng.random() < 0.5 else "wrong"
    return render(question, replace(style, correctness="right" if right else wrong), rng)


def _asked(question: Question, *, learnt: bool) -> Segment:
    return Segment(USER + question.prompt + END + ASSISTANT, learnt)


def exchange(rng: Random) -> Document:
    """A question and its response, mostly right, in any style."""
    question = sample_question(rng)
    response = _response(rng, question, rng.random() < SHARE_RIGHT)
    return (_asked(question, learnt=True), Segment(response + END))


def marked_exchange(rng: Random) -> Document:
    """An exchange and whether the response was right, so that a model learns to check answers.

    Half are asked for by the user, half stand right behind the response. Wrong responses are read
    but not learnt, and neither are prompts here: their facts are drawn at random.
    """
    question = sample_question(rng)
    right = rng.random() < 0.5
    response = Segment(_response(rng, question, right) + END, learnt=right)
    asked = USER + CHECK + END + ASSISTANT if rng.random() < 0.5 else ""
    segments = (_asked(question, learnt=False), response)
    return (*segments, Segment(asked + verdict(question, right) + END))


def fact(rng: Random) -> Document:
    """A sentence that is true whatever was said before."""
    question = sample_question(rng, rng.choice(FACT_KINDS))
    return (Segment(question.statements[0].format(*question.answer) + END),)


def echo(rng: Random) -> Document:
    """Random words said twice: what teaches a small model soonest to look back and copy."""
    words = " ".join(rng.choices(ALL_WORDS, k=rng.randint(3, 12)))
    return (Segment(words + END, learnt=False), Segment(words + END))


def sample_document(rng: Random, echoes: float = 0.03) -> Document:
    """Draw one document of the pretraining text, an echo with probability `echoes`."""
    if rng.random() < echoes:
        return echo(rng)
    kind = rng.random()
    if kind < SHARE_MARKED:
        return marked_exchange(rng)
    if kind < SHARE_MARKED + SHARE_FACTS:
        return fact(rng)
    return exchange(rng)
