"""Held-out split by a hash of the prompt text, identical in every data set."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TYPE_CHECKING

from rlhfctl.data.message_fields import FIELDS
from rlhfctl.data.rows import content, is_conversation
from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

    from rlhfctl.data.rows import Value


def prompt_key(prompt: Value) -> str:
    """Return the normalised text of a prompt: NFKC, case folded, white space collapsed.

    Roles are ignored: a question has the same key as text and as a user message. The key decides
    the side of the split only, where folding more is safer. `same_prompt_key` is for repetitions.
    """
    return " ".join(unicodedata.normalize("NFKC", content(prompt)).casefold().split())


def same_prompt_key(prompt: Value) -> str:
    """Return the key of a prompt under which only repetitions are equal.

    Unicode is composed (NFC), line endings are unified, and white space at the end as well as empty
    lines at the start are removed. Case, indentation, superscripts, roles and fields such as tools
    are kept.
    """
    if not is_conversation(prompt):
        return _composed(prompt)
    parts = [
        part
        for turn in prompt
        for part in (turn["role"], _composed(turn["content"]), *filter(None, [turn.get(FIELDS)]))
    ]
    return "\0".join(parts)


def _composed(text: str) -> str:
    lines = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    return lines.rstrip().lstrip("\n")


def position(key: str) -> float:
    """Map a prompt key to a fixed, uniformly distributed value in [0, 1) by its SHA-256."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7]) / 2.0**56


def held_out(keys: Sequence[str], share: float, name: str, draw: str = "") -> list[bool]:
    """Return for each row whether its prompt's `position` is below `share`.

    Positions do not depend on the data set. A prompt held out at some share is therefore held out
    at every larger share, in every data set. If one part of a small set would be empty, the prompt
    closest to the threshold changes sides.

    Args:
        keys: `prompt_key` of each row.
        share: Share of prompts to hold out.
        name: Data set name for errors.
        draw: Name of an independent draw.

    Raises:
        DataError: There is only one prompt, so one part would be empty.
    """
    return held_out_positions([position(draw + key) for key in keys], share, name)


def held_out_positions(positions: Sequence[float], share: float, name: str) -> list[bool]:
    """Return `held_out` from the `position` of each row's key, which equal keys share.

    Raises:
        DataError: There is only one prompt, so one part would be empty.
    """
    lowest, highest = min(positions, default=0.0), max(positions, default=0.0)
    if lowest == highest:
        raise DataError(
            "all rows have the same prompt, so none can be held out",
            name,
            "provide at least two different prompts",
        )
    if lowest >= share:
        return [place == lowest for place in positions]
    if highest < share:
        return [place != highest for place in positions]
    return [place < share for place in positions]


def set_apart(rows: Dataset, share: float, name: str, draw: str) -> tuple[Dataset, Dataset]:
    """Split rows by prompt: the remaining rows, and the rows of about `share` of the prompts.

    Args:
        rows: Rows with a `prompt`.
        share: Share of prompts to set apart.
        name: Data set name for errors.
        draw: Name of the draw; draws of different names are independent.

    Raises:
        DataError: There is only one prompt, so one part would be empty.
    """
    outside = held_out([prompt_key(prompt) for prompt in rows["prompt"]], share, name, draw)
    return (
        rows.select([index for index, out in enumerate(outside) if not out]),
        rows.select([index for index, out in enumerate(outside) if out]),
    )
