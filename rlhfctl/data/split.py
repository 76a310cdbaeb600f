"""Which prompts are held out: decided by the prompt's own text, so the same in every data set."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TYPE_CHECKING

from rlhfctl.data.rows import content
from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.data.rows import Value


def prompt_key(prompt: Value) -> str:
    """Return a prompt's text as it is compared: NFKC, case folded, runs of white space as one.

    Roles do not count, so that a question is the same as text and as a user's message.
    """
    return " ".join(unicodedata.normalize("NFKC", content(prompt)).casefold().split())


def position(key: str) -> float:
    """Return a prompt key's fixed place in [0, 1), as if drawn evenly: its SHA-256 as a number."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7]) / 2.0**56


def held_out(keys: Sequence[str], share: float, name: str) -> list[bool]:
    """Say of each row whether it is held out: whether its prompt's place lies below `share`.

    Places do not depend on the data set, so a prompt held out at some share is held out at every
    larger one, in every data set. When chance leaves a small set without either part, the prompt
    nearest the border changes sides.

    Raises:
        DataError: There is only one prompt, so that one part would be empty.
    """
    places = {key: position(key) for key in keys}
    if len(places) < 2:
        raise DataError(
            "all rows have the same prompt, so none can be held out for judging",
            name,
            "give at least two different prompts",
        )
    if all(place >= share for place in places.values()):
        outside = {min(places, key=lambda key: places[key])}
    elif all(place < share for place in places.values()):
        outside = set(places) - {max(places, key=lambda key: places[key])}
    else:
        outside = {key for key, place in places.items() if place < share}
    return [key in outside for key in keys]
