"""Parsing of JSON from files and servers, which may be damaged or hostile."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 128
"""Levels of nesting. Python's own limit, 1,000 calls, would be met where a value is walked."""
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
        raise ValueError("a number has thousands of digits") from error
    brackets = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, brackets)) > MAX_DEPTH and _is_deep(value):  # type: ignore[arg-type]
        raise ValueError(_TOO_DEEP)
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
