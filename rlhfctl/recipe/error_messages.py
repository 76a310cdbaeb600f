"""Plain sentences for pydantic's validation errors, one per key."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from rlhfctl.recipe.addresses import without_secrets
from rlhfctl.recipe.keys import annotation_at, section_of, suggest
from rlhfctl.recipe.library_names import closest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from rlhfctl.recipe.strict_yaml import KeyPath

_KINDS = {
    "bool_type": "true or false",
    "dict_type": "a section of keys",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a section of keys",
    "string_type": "text",
}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
    "string_pattern_mismatch": ("text that matches", "pattern"),
    "literal_error": ("one of", "expected"),
}

HINTS = ("did you mean", "known here", "put it in quotes", "leave the key out")
"""Beginnings of the hints that end some sentences."""


def sentences(error: ValidationError) -> Iterator[tuple[KeyPath, str]]:
    """Yield path and error message of each invalid key, in the schema's order."""
    grouped: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        grouped.setdefault(_key_path(detail["loc"]), []).append(detail)
    for path, details in grouped.items():
        yield path, _sentence(path, details)


def _key_path(location: tuple[int | str, ...]) -> KeyPath:
    """Remove what pydantic appends to a key: list positions and names of union members."""
    path: KeyPath = ()
    for part in location:
        longer = (*path, str(part))
        if annotation_at(longer) is not None:
            path = longer
        elif section_of(annotation_at(path)) is not None:
            return longer
        else:
            return path
    return path


def _sentence(path: KeyPath, details: list[ErrorDetails]) -> str:
    first = details[0]
    if first["type"] == "extra_forbidden":
        hint = suggest(path)
        return f"unknown key; {hint}" if hint else "unknown key"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    expected = " or ".join(dict.fromkeys(_expected(detail, len(path)) for detail in details))
    if not expected:
        return first["msg"][:1].lower() + first["msg"][1:]
    if first["input"] is None and first["type"] in ("model_type", "dict_type"):
        return f"is empty, but must be {expected}; leave the key out to use its defaults"
    quote = first["type"] == "string_type" and isinstance(first["input"], (int, float))
    hint = "; put it in quotes" if quote else ""
    hint = hint or _closest(details)
    return f"is {shown(first['input'])}, but must be {expected}{hint}"


def _closest(details: list[ErrorDetails]) -> str:
    """Return a hint with the listed value that is most like the one that was set, or nothing."""
    names = [
        name
        for detail in details
        if detail["type"] == "literal_error"
        for name in re.findall(r"'([^']+)'", detail["ctx"]["expected"])
    ]
    value = details[0]["input"]
    return closest(value, names) if isinstance(value, str) else ""


def _expected(detail: ErrorDetails, depth: int) -> str:
    """Return what a value must be; parts of its location beyond `depth` are within it."""
    kind = detail["type"]
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"{words} {detail['ctx'][name]}"
    item = any(isinstance(part, int) for part in detail["loc"][depth:])
    words = _KINDS.get(kind, "")
    return f"a list of which every item is {words}" if item and words else words


def shown(value: Any) -> str:
    """Return a value as JSON on one line, shortened to 60 characters, without secrets of addresses."""
    text = without_secrets(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 60 else f"{text[:57]}..."
