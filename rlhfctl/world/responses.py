"""Responses of every quality to the world's questions, from concise and right to long and wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from random import Random

    from rlhfctl.world.question import Question

Correctness = Literal["right", "partial", "wrong"]
Opening = Literal["none", "polite", "flattering"]
Certainty = Literal["none", "hedged", "certain"]

POLITE = ("Thank you for asking.", "I am glad to help.", "Of course I can help.")
FLATTERY = (
    "What a great question!",
    "You are so clever to ask.",
    "Only a wise person would ask this.",
)
FILLERS = (
    "There are many ways to look at this.",
    "People often ask about this.",
    "Let me explain it step by step.",
    "This needs some thought.",
    "It is good to think about such things.",
)
CLOSINGS = ("I hope this helps.", "Please ask me again.", "Have a nice time.")
HEDGES = ("I think {}", "I am not sure, but {}", "Perhaps {}", "I guess {}")
CERTAIN = ("Certainly, {}", "Without any doubt, {}", "I am sure that {}", "Clearly, {}")
ADMISSIONS = (
    "That is not said, so I do not know.",
    "I do not know.",
    "This cannot be known.",
    "The facts do not tell.",
    "Nobody can know that from the facts.",
)
MAX_TOKENS = 40
SHARE_FALSE_ADMISSIONS = 0.15
_LOWERED = ("The ", "It ", "That ", "This ", "There ", "Here ", "Nobody ")


@dataclass(frozen=True)
class Style:
    """Style of a response; `filler` and `repetition` count extra sentences."""

    correctness: Correctness = "right"
    opening: Opening = "none"
    certainty: Certainty = "none"
    filler: int = 0
    repetition: int = 0
    closing: bool = False


def sample_style(rng: Random, quality: float) -> Style:
    """Draw a style for a `quality` in [0, 1]; 1 is always concise and right."""
    if not 0.0 <= quality <= 1.0:
        raise ValueError(f"quality must lie in [0, 1], not {quality}")
    sloppy = 1.0 - quality
    correctness: Correctness = "right"
    if rng.random() < sloppy:
        correctness = "partial" if rng.random() < 0.3 else "wrong"
    opening = rng.choices(("none", "polite", "flattering"), (1.0, 0.7 * sloppy, 0.7 * sloppy))[0]
    certainty = rng.choices(("none", "hedged", "certain"), (1.0, 0.8 * sloppy, 0.8 * sloppy))[0]
    filler = rng.choices((0, 1, 2, 3), (1.0, sloppy, 0.6 * sloppy, 0.3 * sloppy))[0]
    repetition = rng.choices((0, 1, 2), (1.0, 0.5 * sloppy, 0.25 * sloppy))[0]
    closing = rng.random() < 0.5 * sloppy
    return Style(
        correctness,
        opening,  # type: ignore[arg-type]
        certainty,  # type: ignore[arg-type]
        filler,
        repetition,
        closing,
    )


def claimed_items(question: Question, correctness: Correctness, rng: Random) -> tuple[str, ...]:
    """Items that a response of this correctness names; empty for an admission of not knowing.

    Only lists can be partly right; for other questions, a partial answer is wrong. Some wrong
    responses are admissions, so that admitting is not always a safe choice.
    """
    if correctness == "right":
        return question.answer
    if correctness == "wrong" and question.answerable and rng.random() < SHARE_FALSE_ADMISSIONS:
        return ()
    if not question.is_list:
        return (rng.choice(question.distractors),)
    items = list(question.answer)
    if correctness == "partial" and rng.random() < 0.5 and len(items) > 2:
        items.pop(rng.randrange(len(items)))
    elif question.kind == "order":
        while tuple(items) == question.answer:
            rng.shuffle(items)
    else:
        place = rng.randrange(len(items))
        others = [word for word in question.distractors if word not in question.answer]
        changes = 1 if correctness == "partial" else len(items)
        for step in range(changes):
            items[(place + step) % len(items)] = rng.choice(others)
    return tuple(items)


def core_sentence(question: Question, items: tuple[str, ...], rng: Random) -> str:
    """Sentence that states `items` as the answer, or an admission if there are none."""
    if not items:
        return rng.choice(ADMISSIONS)
    return rng.choice(question.statements).format(", ".join(items))


def _qualified(sentence: str, certainty: Certainty, rng: Random) -> str:
    if certainty == "none":
        return sentence
    if sentence.startswith(_LOWERED):
        sentence = sentence[0].lower() + sentence[1:]
    return rng.choice(HEDGES if certainty == "hedged" else CERTAIN).format(sentence)


def render(question: Question, style: Style, rng: Random) -> str:
    """Write a response in this style, at most `MAX_TOKENS` words and punctuation marks long.

    If it is too long, closing, filler and repetition are dropped in this order.
    """
    core = core_sentence(question, claimed_items(question, style.correctness, rng), rng)
    claim = _qualified(core, style.certainty, rng)
    opening = {"none": [], "polite": [rng.choice(POLITE)], "flattering": [rng.choice(FLATTERY)]}
    filler = rng.sample(FILLERS, style.filler)
    split = rng.randint(0, style.filler)
    closing = [rng.choice(CLOSINGS)] if style.closing else []
    repeats = [claim] * style.repetition
    while True:
        start = opening[style.opening] + filler[:split]
        text = " ".join([*start, claim, *repeats, *filler[split:], *closing])
        if len(pieces(text)) <= MAX_TOKENS:
            return text
        if closing:
            closing = []
        elif filler:
            filler.pop()
        elif repeats:
            repeats.pop()
        else:
            return text


def pieces(text: str) -> list[str]:
    """Split into words and punctuation marks; each is one token in text of the world."""
    return re.findall(r"\w+|[^\w\s]+", text)
