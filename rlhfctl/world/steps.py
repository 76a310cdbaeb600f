"""Questions answered step by step: a count that grows day by day, one sentence per day.

A right response has 46 to 66 tokens, so credit for it lies at many places: a wrong step in the
middle makes every later one wrong too. The change is the same every day, and the first day is
Monday: changes to be looked up in the prompt at every step, and weeks that start on any day, were
too hard for the small model to learn by a few thousand demonstrations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from rlhfctl.world.lexicon import DAYS, GOODS, LARGEST, NAMES

if TYPE_CHECKING:
    from random import Random

KIND = "steps"
FEWEST_DAYS, MOST_DAYS = 4, 6
ACTS = ("finds", "buys")
_FORM = re.compile(
    r"(?P<name>\w+) has (?P<start>\d{1,2}) (?P<goods>\w+) and (?P<act>finds|buys) (?P<change>[1-9]) "
    rf"more a day from {DAYS[0]} to (?P<last>\w+)\. How many (?P=goods) does (?P=name) have now\? "
    r"Please explain step by step\."
)


@dataclass(frozen=True)
class Move:
    """A day's addition to a count."""

    day: str
    number: int


@dataclass(frozen=True)
class Step:
    """A move with the counts that a response states before and after it."""

    move: Move
    before: int
    after: int


@dataclass(frozen=True)
class StepsQuestion:
    """A count that grows by the same number on each day, from Monday on."""

    name: str
    goods: str
    start: int
    act: str
    change: int
    days: tuple[str, ...]
    kind: str = KIND

    @property
    def prompt(self) -> str:
        """Text of the user's turn."""
        return (
            f"{self.name} has {self.start} {self.goods} and {self.act} {self.change} more a day from "
            f"{self.days[0]} to {self.days[-1]}. How many {self.goods} does {self.name} have now? "
            "Please explain step by step."
        )

    @property
    def moves(self) -> tuple[Move, ...]:
        """The additions of the days."""
        return tuple(Move(day, self.change) for day in self.days)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The right steps."""
        return tuple(walk(self.start, [(move, 0) for move in self.moves]))

    def sentence(self, step: Step) -> str:
        """Sentence of a step, 10 tokens."""
        move = step.move
        return f"{move.day} {move.number}, so {step.before} plus {move.number} is {step.after}."

    def conclusion(self, count: int) -> str:
        """Sentence of the final answer, 6 tokens."""
        return f"{self.name} has {count} {self.goods} now."

    @property
    def solution(self) -> tuple[str, ...]:
        """Sentences of the right response: one per step, then the final answer."""
        steps = self.steps
        return (*map(self.sentence, steps), self.conclusion(steps[-1].after))


def walk(start: int, moves: list[tuple[Move, int]]) -> list[Step]:
    """Return the steps from a start, each move with its error; later steps follow from errors."""
    steps = []
    count = start
    for move, error in moves:
        steps.append(Step(move, count, count + move.number + error))
        count = steps[-1].after
    return steps


def in_range(steps: list[Step] | tuple[Step, ...]) -> bool:
    """True if every count is one whose sums the world has."""
    return all(0 <= step.after <= LARGEST for step in steps)


def sample_steps(rng: Random) -> StepsQuestion:
    """Draw a question of four to six days, whose last count is at most 20."""
    days = DAYS[: rng.randint(FEWEST_DAYS, MOST_DAYS)]
    change = rng.randint(1, LARGEST // len(days))
    start = rng.randint(0, LARGEST - change * len(days))
    name, goods, act = rng.choice(NAMES), rng.choice(GOODS), rng.choice(ACTS)
    return StepsQuestion(name, goods, start, act, change, days)


@lru_cache(maxsize=2**14)  # a prompt is read again for each of its responses
def parse_steps(prompt: str) -> StepsQuestion | None:
    """Parse the text of a prompt; return None if it is not one of `sample_steps`."""
    form = _FORM.fullmatch(" ".join(prompt.split()))
    if form is None or form["name"] not in NAMES or form["goods"] not in GOODS:
        return None
    days = DAYS[: DAYS.index(form["last"]) + 1] if form["last"] in DAYS else ()
    start, change = int(form["start"]), int(form["change"])
    question = StepsQuestion(form["name"], form["goods"], start, form["act"], change, days)
    whole = FEWEST_DAYS <= len(days) <= MOST_DAYS and in_range(question.steps)
    return question if whole else None
