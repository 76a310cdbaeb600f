"""Result of one check of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        name: What was checked, in a word or two.
        level: ``fail``: a run could not work. ``warn``: it may, or something else is amiss.
        what: The result, in one sentence.
        remedy: What to do; empty if nothing.
    """

    name: str
    level: Level
    what: str
    remedy: str = ""


def worse(needed: bool) -> Level:
    """Return the level of something missing: a failure only if the recipe needs it."""
    return "fail" if needed else "warn"
