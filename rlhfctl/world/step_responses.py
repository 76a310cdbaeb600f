"""Responses to questions answered step by step, from right and concise to flawed and padded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.world.responses import FILLERS, pieces
from rlhfctl.world.steps import StepsQuestion, in_range, walk

if TYPE_CHECKING:
    from random import Random

MAX_TOKENS = 80
_ERRORS = (-3, -2, -1, 1, 2, 3)


@dataclass(frozen=True)
class Flaws:
    """Flaws of a response; without any it is the right one.

    Attributes:
        slip: A step in the middle has a wrong result, from which the later ones follow.
        skip: A move is left out.
        wrong_end: The final answer is not the last step's result.
        repeats: Number of steps that are said again.
        fillers: Number of sentences that say nothing.
    """

    slip: bool = False
    skip: bool = False
    wrong_end: bool = False
    repeats: int = 0
    fillers: int = 0


def sample_flaws(rng: Random, quality: float) -> Flaws:
    """Draw flaws for a `quality` in [0, 1]; 1 has none."""
    if not 0.0 <= quality <= 1.0:
        raise ValueError(f"quality must lie in [0, 1], not {quality}")
    sloppy = 1.0 - quality
    return Flaws(
        slip=rng.random() < 0.7 * sloppy,
        skip=rng.random() < 0.3 * sloppy,
        wrong_end=rng.random() < 0.2 * sloppy,
        repeats=rng.choices((0, 1, 2), (1.0, 0.5 * sloppy, 0.25 * sloppy))[0],
        fillers=rng.choices((0, 1, 2), (1.0, 0.6 * sloppy, 0.3 * sloppy))[0],
    )


def render_steps(question: StepsQuestion, flaws: Flaws, rng: Random) -> str:
    """Write a response with these flaws, at most `MAX_TOKENS` tokens long.

    If it is too long, fillers and then repeated steps are dropped.
    """
    while True:
        moves = [(move, 0) for move in question.moves]
        if flaws.skip:
            moves.pop(rng.randrange(len(moves)))
        if flaws.slip:
            place = rng.randrange(len(moves))
            moves[place] = (moves[place][0], rng.choice(_ERRORS))
        steps = walk(question.start, moves)
        if in_range(steps):  # a skip or a slip can lead below 0 or above 20; draw another
            break
    end = steps[-1].after
    if flaws.wrong_end:
        end = rng.choice([end + error for error in _ERRORS if end + error >= 0])
    sentences = [question.sentence(step) for step in steps]
    said_again = [rng.choice(sentences) for _ in range(flaws.repeats)]
    fillers = rng.sample(FILLERS, flaws.fillers)
    positions = [rng.random() for _ in fillers]
    while True:
        text = [step for step in sentences for _ in range(1 + said_again.count(step))]
        for filler, position in zip(fillers, positions, strict=False):
            text.insert(int(position * (len(text) + 1)), filler)
        response = " ".join([*text, question.conclusion(end)])
        if len(pieces(response)) <= MAX_TOKENS:
            return response
        (fillers or said_again).pop()
