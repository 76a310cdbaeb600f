"""Preferences among the labels of pairs: first response, second response, or tie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

_RESPONSES = ("response", "model", "output", "answer", "completion")
_FIRST = {"first", "a", "1", "left", "ppo"} | {
    f"{name}_{end}" for name in _RESPONSES for end in "a1"
}
_SECOND = {"second", "b", "2", "-1", "right", "opponent"} | {
    f"{name}_{end}" for name in _RESPONSES for end in "b2"
}
_TIE = {"tie", "ties", "tied", "draw", "equal", "same", "both", "neither", "no preference"}
_TIE_NUMBER = "0"


@dataclass(frozen=True)
class Sides:
    """Classes that prefer a response, and those that prefer none.

    Attributes:
        first: Class that prefers the first response.
        second: Class that prefers the second.
        ties: Classes without a preference.
    """

    first: int
    second: int
    ties: tuple[int, ...] = ()

    def strict(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the label counts without ties, [items, 2]."""
        return counts[:, [self.first, self.second]]

    def first_shares(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of labels for the first response, [items]; ties count one half."""
        tied = counts[:, list(self.ties)].sum(axis=1)
        shares: NDArray[np.float64] = (counts[:, self.first] + 0.5 * tied) / counts.sum(axis=1)
        return shares


def sides_of(classes: Sequence[str]) -> Sides | None:
    """Return the sides that class names stand for; None where they are not preferences.

    Known names are those of `votes` files: `a`, `b` and `tie`; 1, 2 and 0 (PandaLM); 1, -1 and 0;
    `model_a`, `model_b` and `tie (bothbad)` (Chatbot Arena). Any two classes that do not name a tie
    are two sides, in their order.
    """
    names = [" ".join(name.lower().split()) for name in classes]
    words = [name.partition("(")[0].strip() for name in names]
    ties = tuple(index for index, word in enumerate(words) if word in _TIE)
    if len(names) == 2 and not ties:
        return Sides(0, 1)
    ties += tuple(index for index, name in enumerate(names) if name == _TIE_NUMBER)
    first = [index for index, name in enumerate(names) if name in _FIRST]
    second = [index for index, name in enumerate(names) if name in _SECOND]
    if len(first) != 1 or len(second) != 1 or len(ties) + 2 != len(names):
        return None
    return Sides(first[0], second[0], ties)
