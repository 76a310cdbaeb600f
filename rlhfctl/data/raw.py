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
        # First row of each part, then the end: as many as are known without reading a part early.
        self._starts = [0]
        self._current = self._reached = 0

    def __len__(self) -> int:
        while len(self._starts) <= len(self._parts):
            self._learn_length()
        return self._starts[-1]

    @overload
    def __getitem__(self, row: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, row: int | slice) -> Any:
        if isinstance(row, slice):
            return [self[index] for index in range(len(self))[row]]
        part, number = self._find(row if row >= 0 else row + len(self))
        return part.rows[number]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        self._reached = 0
        for number, part in enumerate(self._parts):
            self._current = number
            for row in part.rows:
                self._reached += 1
                yield row
            if len(self._starts) == number + 1:
                self._learn_length()

    def select(self, numbers: Sequence[int]) -> list[Mapping[str, Any]]:
        """Return some of the rows in the order of `numbers`; each part is read once."""
        len(self)
        rows: dict[int, Mapping[str, Any]] = {}
        for start, part in zip(self._starts, self._parts, strict=False):
            own = [n for n in dict.fromkeys(numbers) if start <= n < start + len(part.rows)]
            rows |= zip(own, selected(part.rows, [n - start for n in own]), strict=True)
        return [rows[number] for number in numbers]

    def share_read(self) -> float:
        """Return about what share the current pass has read, by parts."""
        within = getattr(self._parts[self._current].rows, "share_read", float)()
        return (self._current + float(within)) / len(self._parts)

    def select_columns(self, names: Sequence[str]) -> JoinedRows:
        """Return the rows with some columns; a part may lack a column."""
        return JoinedRows([part.only(names) for part in self._parts])

    def place(self, row: int) -> str:
        """Return the location of a row."""
        part, number = self._find(row)
        return part.place(number)

    def _learn_length(self) -> None:
        part = self._parts[len(self._starts) - 1]
        self._starts.append(self._starts[-1] + len(part.rows))

    def _find(self, row: int) -> tuple[RawRows, int]:
        """Return the part of a row and its number there; a row that a pass has reached is quick."""
        if row >= self._reached:
            row = range(len(self))[row]
        index = bisect_right(self._starts, row) - 1
        return self._parts[index], row - self._starts[index]


def selected(rows: Sequence[Mapping[str, Any]], numbers: Sequence[int]) -> Sequence[Any]:
    """Return some of the rows in the order of `numbers`, in one pass where there is a way."""
    select = getattr(rows, "select", None)
    return [rows[number] for number in numbers] if select is None else list(select(numbers))


def listed(columns: Sequence[str], most: int = 20) -> str:
    """Return column names for a message, at most some of them."""
    shown = ", ".join(columns[:most])
    return (f"{shown} and {len(columns) - most} more" if len(columns) > most else shown) or "none"


def did_you_mean(name: str, columns: Sequence[str], key: str) -> str:
    """Return advice for a column that is not there."""
    close = difflib.get_close_matches(name, columns, n=1)
    return f"did you mean {close[0]}? Set {key}" if close else f"set {key} to one of them"
