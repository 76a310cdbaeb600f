"""Parsers of JSON Lines and JSON files, with line numbers for rows and errors."""

from __future__ import annotations

import json
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from rlhfctl.data.compression import lines, open_data, read_bytes
from rlhfctl.data.json_array import ArrayText
from rlhfctl.data.utf8 import decoded, not_utf8
from rlhfctl.errors import DataError
from rlhfctl.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NumberedRow = tuple[int, dict[str, Any]]

_SHOWN_FAULTS = 5
_BOM = b"\xef\xbb\xbf"
_START = 1 << 20
_LARGEST_OBJECT = 1 << 26


class Faults:
    """Broken lines of one file: a count, and messages for the first few."""

    def __init__(self, path: Path, unit: str = "", hint: str = "") -> None:
        self.path = path
        self.unit = unit
        self.hint = hint or "fix the file; no rows were loaded"
        self.count = 0
        self.lines: list[str] = []

    def add(self, line: int, reason: str) -> None:
        """Count one broken line."""
        self.count += 1
        if len(self.lines) < _SHOWN_FAULTS:
            self.lines.append(f"{self.path}:{self.unit}{line}: {reason}")

    def check(self) -> None:
        """Raise if there were any.

        Raises:
            DataError: Lines are broken.
        """
        if not self.count:
            return
        more = self.count - len(self.lines)
        text = "\n".join([*self.lines, f"and {more:,} more broken lines"] if more else self.lines)
        raise DataError(text, hint=self.hint)


def read_json_lines(
    path: Path, limit: int | None = None, raw_file: IO[bytes] | None = None
) -> Iterator[NumberedRow]:
    """Yield line number and object of each non-blank line.

    Args:
        path: File, compressed or not.
        limit: Maximum number of lines read; None reads all.
        raw_file: The file opened for reading, if the caller follows its position.

    Raises:
        DataError: Lines are broken; shows the first five with their reasons, and the count.
        OSError: The file cannot be read.
    """
    faults = Faults(path)
    with open_data(path, raw_file) as stream:
        filled = ((number, raw) for number, raw in lines(stream, path) if raw.strip())
        for number, raw in islice(filled, limit):
            try:
                row = parse_json(decoded(raw, first=number == 1))
            except UnicodeDecodeError as error:
                faults.add(number, not_utf8(raw, error))
            except json.JSONDecodeError as error:
                faults.add(number, _not_json(error))
            except ValueError as error:  # nested too deeply, or a number of thousands of digits
                faults.add(number, str(error))
            else:
                if isinstance(row, dict):
                    yield number, row
                else:
                    faults.add(number, "not a JSON object ({...}) with a value for each column")
    faults.check()


def read_json(
    path: Path, limit: int | None = None, raw_file: IO[bytes] | None = None
) -> Iterator[NumberedRow]:
    """Yield row number (from 1) and object of a JSON array, or of JSON Lines in a .json file.

    Args:
        path: File, compressed or not.
        limit: Maximum number of rows read; None reads all.
        raw_file: The file opened for reading, if the caller follows its position.

    Raises:
        DataError: The file is broken (names the line) or is not an array of objects.
        OSError: The file cannot be read.
    """
    start = read_bytes(path, _START)
    if not start.lstrip().removeprefix(_BOM).lstrip().startswith(b"["):
        _refuse_single_object(path, start)
        yield from read_json_lines(path, limit, raw_file)
        return
    faults = Faults(path, "row ")
    with open_data(path, raw_file) as stream:
        values = islice(ArrayText(stream, path).values(), limit)
        for number, row in enumerate(values, start=1):
            if isinstance(row, dict):
                yield number, row
            else:
                faults.add(number, "not a JSON object ({...})")
    faults.check()


def _refuse_single_object(path: Path, start: bytes) -> None:
    """Refuse one object over several lines, which line by line would only be broken JSON.

    Args:
        path: The file.
        start: Its first bytes.

    Raises:
        DataError: The file is one object. Larger ones are refused line by line.
    """
    first, _, rest = start.lstrip().removeprefix(_BOM).partition(b"\n")
    if rest.strip() and _is_json(first):
        return
    raw = read_bytes(path, _LARGEST_OBJECT)
    if len(raw) == _LARGEST_OBJECT or raw.lstrip().count(b"\n") == 0:
        return
    try:
        value = parse_json(decoded(raw, first=True))
    except ValueError:
        return
    if not isinstance(value, dict):
        return
    listed = [name for name, part in value.items() if isinstance(part, list)]
    within = f"; its key {listed[0]} has a list" if listed else ""
    raise DataError(
        f"the file is one JSON object, not an array of rows{within}",
        str(path),
        "save the rows as an array ([{...}, ...]) or as JSON Lines, one object per line",
    )


def _is_json(raw: bytes) -> bool:
    try:
        parse_json(raw)
    except ValueError:
        return False
    return True


def _not_json(error: json.JSONDecodeError) -> str:
    cut = error.pos >= len(error.doc.rstrip())
    ending = "; the text ends too early" if cut else ""
    return f"not JSON: {error.msg} at column {error.colno}{ending}"
