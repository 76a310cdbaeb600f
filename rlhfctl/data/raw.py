"""Unprocessed rows of a source, and the choice of the columns to read."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import DataError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LAYOUTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "demonstrations": (("prompt", "completion"), ("messages",), ("text",)),
    "comparisons": (("prompt", "chosen", "rejected"), ("chosen", "rejected")),
    "prompts": (
        ("messages",),
        ("prompt", "chosen", "rejected"),
        ("chosen", "rejected"),
        ("prompt", "completion"),
        ("prompt",),
        ("text",),
    ),
}
_EXTRAS = {"comparisons": ("annotator", "margin", "source")}


@dataclass(frozen=True)
class RawRows:
    """Unchecked rows of a source.

    Attributes:
        name: Source name as given by the user.
        columns: Column names of the source.
        rows: The rows, each a mapping of column to value.
        place: Row index (from 0) -> its location, such as ``pairs.jsonl:12``.
    """

    name: str
    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]
    place: Callable[[int], str]


def check_mapping(kind: str, mapping: Mapping[str, str]) -> None:
    """Refuse a recipe's `columns` that maps an unknown column.

    Raises:
        RecipeError: A key is not a column of this kind of data.
    """
    valid = {column for layout in LAYOUTS[kind] for column in layout} | set(_EXTRAS.get(kind, ()))
    for ours in mapping:
        if ours not in valid:
            raise RecipeError(
                f"{ours} is not a column of {kind}; they are {', '.join(sorted(valid))}",
                f"data.{kind}.columns",
                "columns maps our name to the source's name",
            )


def choose_columns(
    kind: str, columns: Sequence[str], mapping: Mapping[str, str], name: str
) -> dict[str, str]:
    """Return our column -> the source's column, for the first documented layout that fits.

    Args:
        kind: ``demonstrations``, ``comparisons`` or ``prompts``.
        columns: Columns of the source.
        mapping: The recipe's ``columns``: our name -> the source's name.
        name: The source, for messages.

    Raises:
        RecipeError: The mapping has an unknown column.
        DataError: The source lacks the columns of every layout.
    """
    check_mapping(kind, mapping)
    for ours, theirs in mapping.items():
        if theirs not in columns:
            raise DataError(
                f"there is no column {theirs}; found: {_listed(columns)}",
                name,
                _did_you_mean(theirs, columns, f"data.{kind}.columns.{ours}"),
            )
    extras = _EXTRAS.get(kind, ())
    available = {column: column for column in columns} | dict(mapping)
    required = set(mapping) - set(extras)
    for layout in LAYOUTS[kind]:
        if required <= set(layout) and set(layout) <= set(available):
            selected = (*layout, *(extra for extra in extras if extra in available))
            return {column: available[column] for column in selected}
    layouts = "; or ".join(" + ".join(layout) for layout in LAYOUTS[kind])
    raise DataError(
        f"{kind} need the columns {layouts}; found: {_listed(columns)}",
        name,
        _mapping_hint(kind, columns),
    )


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:20])
    return (f"{shown} and {len(columns) - 20} more" if len(columns) > 20 else shown) or "none"


def _did_you_mean(name: str, columns: Sequence[str], key: str) -> str:
    close = difflib.get_close_matches(name, columns, n=1)
    return f"did you mean {close[0]}? Set {key}" if close else f"set {key} to one of them"


def _mapping_hint(kind: str, columns: Sequence[str]) -> str:
    needed = {column for layout in LAYOUTS[kind] for column in layout} - set(columns)
    for column in sorted(needed):
        close = difflib.get_close_matches(column, columns, n=1)
        if close:
            return f"for example data.{kind}.columns: {{{column}: {close[0]}}}"
    return f"map them with data.{kind}.columns: {{our name: name in the source}}"
