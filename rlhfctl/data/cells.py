"""Values of cells that are an object or a choice between two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhfctl.data.messages import parsed_text
from rlhfctl.data.rows import BadRowError


def choice_of(value: Any, column: str) -> int:
    """Return 0 or 1, given as a number, a boolean or text.

    Raises:
        BadRowError: It is something else.
    """
    text = str(int(value) if isinstance(value, bool) else value).strip().removesuffix(".0")
    if text not in ("0", "1"):
        raise BadRowError(f"{column} is not 0 or 1")
    return int(text)


def object_of(value: Any, column: str) -> Mapping[str, Any]:
    """Return an object, or the one that a text holds.

    Raises:
        BadRowError: It is something else.
    """
    if isinstance(value, str):
        value = parsed_text(value)
    if not isinstance(value, Mapping):
        raise BadRowError(f"{column} is not an object")
    return value
