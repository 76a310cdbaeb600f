"""Parsing of JSON from files and servers, which may be damaged or hostile."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 128
"""Levels of nesting. Python's own limit, 1,000 calls, would be met where a value is walked."""
_TOO_LONG = "a number has thousands of digits"
_DECODER = json.JSONDecoder()
_TOO_DEEP = f"nested too deeply, more than {MAX_DEPTH} levels"


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: The text is not JSON, is no UTF-8, or is nested too deeply.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError as error:  # Python's limit on the digits of a number
        raise ValueError(_TOO_LONG) from error
    brackets = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, brackets)) > MAX_DEPTH and _is_deep(value):  # type: ignore[arg-type]
        raise ValueError(_TOO_DEEP)
    return value


def parse_value(text: str, start: int) -> tuple[Any, int]:
    """Return a value within the text of an array, and the place after it.

    Args:
        text: The text.
        start: Place of the value's first character.

    Raises:
        ValueError: There is no JSON value, or the array is nested too deeply.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise ValueError(_TOO_LONG) from error
    brackets = text.count("[", start, end) + text.count("{", start, end)
    if brackets >= MAX_DEPTH and _is_deep(value, MAX_DEPTH - 1):
        raise ValueError(_TOO_DEEP)
    return value, end


def _is_deep(value: Any, most: int = MAX_DEPTH) -> bool:
    level = [value]
    for _ in range(most + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
