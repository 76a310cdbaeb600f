"""Rows that are read anew in each pass and never in memory together."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, overload

from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from rlhfctl.data.text_files import NumberedRow

    Reader = Callable[[Path, int | None, IO[bytes] | None], Iterable[NumberedRow]]

HEAD_ROWS = 1000
"""Rows that stay in memory: those that the form of a source is recognised by."""


class RowStream(Sequence["Mapping[str, Any]"]):
    """Rows whose number is known once a pass has reached the end."""

    _count: int | None = None
    _reached = 0

    @abstractmethod
    def _pass(self) -> Iterator[Mapping[str, Any]]:
        """Yield all rows from the first on."""

    @abstractmethod
    def share_read(self) -> float:
        """Return the share of the source that the current pass has read."""

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        self._reached = 0
        for row in self._pass():
            self._reached += 1
            yield row
        self._count = self._reached

    def __len__(self) -> int:
        if self._count is None:
            self._count = sum(1 for _ in self)
        return self._count

    @overload
    def __getitem__(self, row: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, row: int | slice) -> Any:
        if isinstance(row, slice):
            return self.select(range(len(self))[row])
        if 0 <= row < len(self.head):
            return self.head[row]
        (only,) = self.select([range(len(self))[row]])
        return only

    @cached_property
    def head(self) -> Sequence[Mapping[str, Any]]:
        """The first rows."""
        return list(islice(self, HEAD_ROWS))

    def select(self, numbers: Sequence[int]) -> list[Mapping[str, Any]]:
        """Return some of the rows in the order of `numbers`, from one pass."""
        last = max(numbers, default=-1)
        chosen = set(numbers)
        rows = {
            number: row for number, row in enumerate(islice(self, last + 1)) if number in chosen
        }
        return [rows[number] for number in numbers]


class StreamedRows(RowStream):
    """Rows of one text file, parsed in each pass.

    Args:
        path: The file, compressed or not.
        read: Its parser.
    """

    def __init__(self, path: Path, read: Reader) -> None:
        self._path = path
        self._read = read
        self._lines = array("Q")
        self._size = max(1, path.stat().st_size)
        self._stream: IO[bytes] | None = None

    def _pass(self) -> Iterator[Mapping[str, Any]]:
        try:
            with self._path.open("rb") as self._stream:
                for index, (line, row) in enumerate(self._read(self._path, None, self._stream)):
                    if index == len(self._lines):
                        self._lines.append(line)
                    yield row
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"cannot be read: {reason}", str(self._path)) from error

    def line(self, row: int) -> int:
        """Return the line of a row that a pass has reached."""
        return self._lines[row]

    def share_read(self) -> float:
        """Return the share of the file that the current pass has read."""
        if self._stream is None or self._stream.closed:
            return 0.0
        return min(1.0, self._stream.tell() / self._size)


class FirstRows(RowStream):
    """The first rows of a source; no pass goes beyond them.

    Args:
        rows: The source.
        limit: Number of rows.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], limit: int) -> None:
        self._rows = rows
        self._limit = limit

    def _pass(self) -> Iterator[Mapping[str, Any]]:
        return islice(iter(self._rows), self._limit)

    def share_read(self) -> float:
        """Return the share of the first rows that the current pass has read."""
        return self._reached / self._limit

    def select_columns(self, names: Sequence[str]) -> FirstRows:
        """Return the rows with some columns, where the source can be read by column."""
        rows: Any = self._rows
        return FirstRows(
            rows.select_columns(names) if hasattr(rows, "select_columns") else rows, self._limit
        )
