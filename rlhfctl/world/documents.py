"""Pretraining text of the embedded model: exchanges, facts, and exchanges with a verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from rlhfctl.world.facts import ATTRIBUTES, draw_facts
from rlhfctl.world.lexicon import CITIES, COLOURS, GOODS, LIST_WORDS, NAMES, NUMBERS, THINGS
from rlhfctl.world.questions import ADJECTIVES, sample_question
from rlhfctl.world.responses import Correctness, claimed_items, render, sample_style

if TYPE_CHECKING:
    from random import Random

    from rlhfctl.world.question import Question

USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
CHECK = "Is that right?"
TABLE_KINDS = ("sum", "difference", "calendar", "opposite")
SHARE_MARKED = 0.4
OTHER_SHARES = (0.45, 0.1, 0.3, 0.15)
SHARE_ASKED = 0.15
SHARE_RIGHT = 0.9
CONCISE_WORDS = 8
ALL_WORDS = (*NAMES, *CITIES, *COLOURS, *THINGS, *GOODS, *LIST_WORDS, *NUMBERS, *ADJECTIVES)


Role = Literal["prompt", "concise", "phrased", "verdict", "read"]


@dataclass(frozen=True)
class Segment:
    """A span of a document and its role, which sets its weight in the pretraining loss.

    The role "read" has no loss: wrong responses, and words that are echoed later.
    """

    text: str
    role: Role


Document = tuple[Segment, ...]


def verdict(question: Question, right: bool) -> str:
    """Verdict on a response: yes, or no with the right answer."""
    if right:
        return "Yes."
    if not question.answerable:
        return "No, the facts do not tell."
    return f"No, it is {', '.join(question.answer)}."


def _response(rng: Random, question: Question, right: bool, concise: float) -> str:
    style = sample_style(rng, 1.0 if rng.random() < concise else rng.random())
    wrong: Correctness = "partial" if question.is_list and rng.random() < 0.5 else "wrong"
    return render(question, replace(style, correctness="right" if right else wrong), rng)


def _asked(question: Question, role: Role) -> Segment:
    return Segment(USER + question.prompt + END + ASSISTANT, role)


def _answered(response: str) -> Segment:
    concise = len(response.split()) <= CONCISE_WORDS
    return Segment(response + END, "concise" if concise else "phrased")


def exchange(rng: Random) -> Document:
    """A question and its response, mostly right, in any style."""
    question = sample_question(rng)
    response = _response(rng, question, rng.random() < SHARE_RIGHT, 0.4)
    return (_asked(question, "prompt"), _answered(response))


def marked_exchange(rng: Random, question: Question, right: bool) -> Document:
    """An exchange followed by a verdict on the response, to teach the model to check answers.

    Some verdicts follow a question from the user, most follow the response directly. Wrong
    responses and prompts have no loss here, since the facts of a prompt are random.
    """
    response = _response(rng, question, right, 0.75)
    answer = _answered(response) if right else Segment(response + END, "read")
    if rng.random() < SHARE_ASKED:
        mark = USER + CHECK + END + ASSISTANT + verdict(question, right)
    else:
        mark = _mark(right)
    return (_asked(question, "read"), answer, Segment(mark + END, "verdict"))


def _mark(right: bool) -> str:
    return "Yes." if right else "No."


def _fact_text(rng: Random) -> tuple[Segment, list[tuple[str, str]]]:
    """Facts about a person, with a true and a false claim about each."""
    name = rng.choice(NAMES)
    text, facts = draw_facts(rng, [attribute.kind for attribute in ATTRIBUTES])
    claims = []
    for attribute in ATTRIBUTES:
        owner, value = facts[attribute.kind]
        wrong = rng.choice([other for other in attribute.values if other != value])
        claims.append(
            (
                attribute.claim.format(name=name, owner=owner, value=value),
                attribute.claim.format(name=name, owner=owner, value=wrong),
            )
        )
    return Segment(f"{name} {text}.{END}", "read"), claims


def recital(rng: Random) -> Document:
    """Facts, followed by a random sample of the same facts."""
    facts, claims = _fact_text(rng)
    again = " ".join(true for true, _ in rng.choices(claims, k=3))
    return (facts, Segment(again + END, "concise"))


def checked_facts(rng: Random) -> Document:
    """Facts, followed by claims about them, each with a verdict."""
    facts, claims = _fact_text(rng)
    segments = [facts]
    for true, false in rng.sample(claims, len(claims)):
        right = rng.random() < 0.5
        segments += _checked(true if right else false, right)
    return tuple(segments)


def checked_table(rng: Random) -> Document:
    """Claims whose correctness is independent of context, each with a verdict."""
    kind = rng.choice(TABLE_KINDS)
    segments: list[Segment] = []
    for _ in range(4):
        question = sample_question(rng, kind)
        right = rng.random() < 0.5
        items = claimed_items(question, "right" if right else "wrong", rng)
        if items:
            segments += _checked(question.statements[0].format(*items), right)
    return tuple(segments) if segments else checked_table(rng)


def _checked(claim: str, right: bool) -> list[Segment]:
    statement = Segment(claim + END, "concise" if right else "read")
    return [statement, Segment(_mark(right) + END, "verdict")]


def echo(rng: Random) -> Document:
    """Random words twice: the fastest way to teach a small model to copy from context."""
    words = " ".join(rng.choices(ALL_WORDS, k=rng.randint(3, 12)))
    return (Segment(words + END, "read"), Segment(words + END, "concise"))


def sample_documents(rng: Random, echoes: float = 0.03) -> list[Document]:
    """Draw one or two pretraining documents, an echo with probability `echoes`.

    A marked exchange appears twice, with a right and with a wrong response, so that the prompt
    alone does not predict the verdict.
    """
    if rng.random() < echoes:
        return [echo(rng)]
    if rng.random() < SHARE_MARKED:
        question = sample_question(rng)
        return [marked_exchange(rng, question, right) for right in (True, False)]
    makers = (exchange, recital, checked_facts, checked_table)
    return [rng.choices(makers, OTHER_SHARES)[0](rng)]
