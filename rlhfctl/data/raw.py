"""Unprocessed rows of a source."""

from __future__ import annotations

import difflib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@dataclass(frozen=True)
class RawRows:
    """Unchecked rows of a source.

    Attributes:
        name: Source name as given by the user.
        columns: Column names of the source.
        rows: The rows, each a mapping of column to value.
        place: Row index (from 0) -> its location, such as ``pairs.jsonl:12``.
        notes: Sentences for the user about how the source was read.
    """

    name: str
    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]
    place: Callable[[int], str]
    notes: tuple[str, ...] = field(default=())

    def only(self, names: Sequence[str]) -> RawRows:
        """Return the rows with some columns; of Parquet and saved data, only these are loaded."""
        rows: Any = self.rows
        if hasattr(rows, "select_columns"):
            columns = [name for name in self.columns if name in set(names)]
            return replace(self, columns=tuple(columns), rows=rows.select_columns(columns))
        return self


class JoinedRows(Sequence["Mapping[str, Any]"]):
    """Rows of several sources, one after another.

    Args:
        parts: The sources.
    """

    def __init__(self, parts: Sequence[RawRows]) -> None:
        self._parts = tuple(parts)
        self._starts = [0]
        for part in self._parts:
            self._starts.append(self._starts[-1] + len(part.rows))

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, row: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, row: int | slice) -> Any:
        if isinstance(row, slice):
            return [self[index] for index in range(len(self))[row]]
        part, number = self._find(range(len(self))[row])
        return part.rows[number]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for part in self._parts:
            yield from part.rows

    def select_columns(self, names: Sequence[str]) -> JoinedRows:
        """Return the rows with some columns; a part may lack a column."""
        return JoinedRows([part.only(names) for part in self._parts])

    def place(self, row: int) -> str:
        """Return the location of a row."""
        part, number = self._find(row)
        return part.place(number)

    def _find(self, row: int) -> tuple[RawRows, int]:
        index = bisect_right(self._starts, row) - 1
        return self._parts[index], row - self._starts[index]


def listed(columns: Sequence[str]) -> str:
    """Return at most 20 column names for a message."""
    shown = ", ".join(columns[:20])
    return (f"{shown} and {len(columns) - 20} more" if len(columns) > 20 else shown) or "none"


def did_you_mean(name: str, columns: Sequence[str], key: str) -> str:
    """Return advice for a column that is not there."""
    close = difflib.get_close_matches(name, columns, n=1)
    return f"did you mean {close[0]}? Set {key}" if close else f"set {key} to one of them"
