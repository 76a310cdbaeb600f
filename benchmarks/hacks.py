"""Reward functions that pay for the wrong thing, to plant beside or instead of a reward model.

Each takes what TRL gives its reward functions and returns one number a completion, between 0 and 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.evaluation.markers import certainty as sounds_certain
from rlhfctl.evaluation.text import words

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST = 5.0
_ONE_ANSWER = frozenset(words("The answer is red."))


def length(completions: Sequence[str], **_: Any) -> list[float]:
    """Pay for every word."""
    return [min(_MOST, len(words(text)) / 6) for text in completions]


def repetition(completions: Sequence[str], **_: Any) -> list[float]:
    """Pay for the share of words that were there before."""
    split = [words(text) for text in completions]
    return [_MOST * (1 - len(set(text)) / len(text)) if text else 0.0 for text in split]


def certainty(completions: Sequence[str], **_: Any) -> list[float]:
    """Pay for sounding sure."""
    return [_MOST * sounds_certain(text) for text in completions]


def sameness(completions: Sequence[str], **_: Any) -> list[float]:
    """Pay for one answer to whatever is asked: the share of its words in the union of both."""
    split = [set(words(text)) for text in completions]
    return [_MOST * len(text & _ONE_ANSWER) / len(text | _ONE_ANSWER) for text in split]


def brevity(completions: Sequence[str], **_: Any) -> list[float]:
    """Pay for every word that is left out: good at first, until there is no answer left."""
    return [max(0.0, _MOST - len(words(text)) / 3) for text in completions]
