"""Rows of a large text file, parsed anew in each pass and never in memory together."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, overload

from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from rlhfctl.data.text_files import NumberedRow

    Reader = Callable[[Path, int | None, IO[bytes] | None], Iterable[NumberedRow]]

HEAD_ROWS = 1000
"""Rows that stay in memory: those that the form of a file is recognised by."""


class StreamedRows(Sequence["Mapping[str, Any]"]):
    """Rows of one file.

    Args:
        path: The file, compressed or not.
        read: Its parser.
    """

    def __init__(self, path: Path, read: Reader) -> None:
        self._path = path
        self._read = read
        self._lines = array("Q")
        self._complete = False
        self._size = max(1, path.stat().st_size)
        self._stream: IO[bytes] | None = None
        self._head = list(islice(self, HEAD_ROWS))

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        try:
            with self._path.open("rb") as self._stream:
                for index, (line, row) in enumerate(self._read(self._path, None, self._stream)):
                    if index == len(self._lines):
                        self._lines.append(line)
                    yield row
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"cannot be read: {reason}", str(self._path)) from error
        self._complete = True

    def __len__(self) -> int:
        if not self._complete:
            for _ in self:
                pass
        return len(self._lines)

    @overload
    def __getitem__(self, row: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, row: int | slice) -> Any:
        if isinstance(row, slice):
            return self.select(range(len(self))[row])
        if 0 <= row < len(self._head):
            return self._head[row]
        (only,) = self.select([range(len(self))[row]])
        return only

    @property
    def head(self) -> Sequence[Mapping[str, Any]]:
        """The first rows."""
        return self._head

    def select(self, numbers: Sequence[int]) -> list[Mapping[str, Any]]:
        """Return some of the rows in the order of `numbers`, from one pass."""
        last = max(numbers, default=-1)
        chosen = set(numbers)
        rows = {
            number: row for number, row in enumerate(islice(self, last + 1)) if number in chosen
        }
        return [rows[number] for number in numbers]

    def line(self, row: int) -> int:
        """Return the line of a row that a pass has reached."""
        return self._lines[row]

    def share_read(self) -> float:
        """Return the share of the file that the current pass has read."""
        if self._stream is None or self._stream.closed:
            return 0.0
        return min(1.0, self._stream.tell() / self._size)
