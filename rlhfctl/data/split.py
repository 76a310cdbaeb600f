"""Which prompts are held out: decided by the prompt's own text, so the same in every data set."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TYPE_CHECKING

from rlhfctl.data.rows import content
from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

    from rlhfctl.data.rows import Value


def prompt_key(prompt: Value) -> str:
    """Return a prompt's text as it is compared: NFKC, case folded, runs of white space as one.

    Roles do not count, so that a question is the same as text and as a user's message.
    """
    return " ".join(unicodedata.normalize("NFKC", content(prompt)).casefold().split())


def position(key: str) -> float:
    """Return a prompt key's fixed place in [0, 1), as if drawn evenly: its SHA-256 as a number."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7]) / 2.0**56


def held_out(keys: Sequence[str], share: float, name: str, draw: str = "") -> list[bool]:
    """Say of each row whether it is held out: whether its prompt's place lies below `share`.

    Places do not depend on the data set, so a prompt held out at some share is held out at every
    larger one, in every data set. When chance leaves a small set without either part, the prompt
    nearest the border changes sides.

    Args:
        keys: Of each row, its `prompt_key`.
        share: Of the prompts, to hold out.
        name: The data set's, for errors.
        draw: Names a draw of its own, whose places have nothing to do with those of others.

    Raises:
        DataError: There is only one prompt, so that one part would be empty.
    """
    places = {key: position(draw + key) for key in keys}
    if len(places) < 2:
        raise DataError(
            "all rows have the same prompt, so none can be held out for context",
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


def set_apart(rows: Dataset, share: float, name: str, draw: str) -> tuple[Dataset, Dataset]:
    """Return rows in two parts that share no prompt: the rest, and about `share` of the prompts.

    Args:
        rows: With a `prompt` each.
        share: Of the prompts, to set apart.
        name: The data set's, for errors.
        draw: Names the draw; one of another name, or none, says nothing about this one.

    Raises:
        DataError: There is only one prompt, so that one part would be empty.
    """
    outside = held_out([prompt_key(prompt) for prompt in rows["prompt"]], share, name, draw)
    return (
        rows.select([at for at, out in enumerate(outside) if not out]),
        rows.select([at for at, out in enumerate(outside) if out]),
    )
