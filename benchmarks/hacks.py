"""Exploitable reward functions, used in addition to or instead of a reward model.

Each has the signature of TRL's reward functions and returns a score in [0, 5] per completion.
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
    """Reward the number of words."""
    return [min(_MOST, len(words(text)) / 6) for text in completions]


def repetition(completions: Sequence[str], **_: Any) -> list[float]:
    """Reward the share of repeated words."""
    split = [words(text) for text in completions]
    return [_MOST * (1 - len(set(text)) / len(text)) if text else 0.0 for text in split]


def certainty(completions: Sequence[str], **_: Any) -> list[float]:
    """Reward expressions of certainty."""
    return [_MOST * sounds_certain(text) for text in completions]


def sameness(completions: Sequence[str], **_: Any) -> list[float]:
    """Reward one fixed answer to every prompt: Jaccard similarity of the words."""
    split = [set(words(text)) for text in completions]
    return [_MOST * len(text & _ONE_ANSWER) / len(text | _ONE_ANSWER) for text in split]


def brevity(completions: Sequence[str], **_: Any) -> list[float]:
    """Reward short responses, which first helps and then removes the answer."""
    return [max(0.0, _MOST - len(words(text)) / 3) for text in completions]
