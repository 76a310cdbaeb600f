"""Parsers of JSON Lines, JSON and CSV files, with line numbers for rows and errors."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NumberedRow = tuple[int, dict[str, Any]]

_SHOWN_FAULTS = 5
# csv's default limit of 128 KiB per cell is too small for a long conversation
_MAX_CELL = 1 << 27


class _Faults:
    """Broken lines of one file: a count, and messages for the first few."""

    def __init__(self, path: Path, unit: str = "") -> None:
        self.path = path
        self.unit = unit
        self.count = 0
        self.lines: list[str] = []

    def add(self, line: int, reason: str) -> None:
        self.count += 1
        if len(self.lines) < _SHOWN_FAULTS:
            self.lines.append(f"{self.path}:{self.unit}{line}: {reason}")

    def check(self) -> None:
        """Raise a DataError if there were any."""
        if not self.count:
            return
        more = self.count - len(self.lines)
        text = "\n".join([*self.lines, f"and {more:,} more broken lines"] if more else self.lines)
        raise DataError(text, hint="fix the file; no rows were loaded")


def read_json_lines(path: Path, limit: int | None = None) -> Iterator[NumberedRow]:
    """Yield line number and object of each non-blank line.

    Args:
        path: File; gzip-compressed if its name ends in ``.gz``.
        limit: Maximum number of lines read; None reads all.

    Raises:
        DataError: Lines are broken; shows the first five with their reasons, and the count.
        OSError: The file cannot be read.
    """
    faults = _Faults(path)
    with _open(path) as stream:
        filled = ((number, raw) for number, raw in _lines(stream, path) if raw.strip())
        for number, raw in islice(filled, limit):
            try:
                row = json.loads(_decoded(raw, first=number == 1))
            except UnicodeDecodeError as error:
                faults.add(number, _not_utf8(raw, error))
            except json.JSONDecodeError as error:
                faults.add(number, _not_json(error))
            except RecursionError:
                faults.add(number, "nested too deeply")
            else:
                if isinstance(row, dict):
                    yield number, row
                else:
                    faults.add(number, "not a JSON object ({...}) with a value for each column")
    faults.check()


def read_json(path: Path, limit: int | None = None) -> Iterator[NumberedRow]:
    """Yield row number (from 1) and object of a JSON array, or of JSON Lines in a .json file.

    Raises:
        DataError: The file is broken (names the line) or is not an array of objects.
        OSError: The file cannot be read.
    """
    with _open(path) as stream:
        raw = b"".join(line for _, line in _lines(stream, path))
    if not raw.lstrip().removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        yield from read_json_lines(path, limit)
        return
    try:
        rows = json.loads(_decoded(raw, first=True))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(_not_utf8(raw, error), f"{path}:{line}") from error
    except json.JSONDecodeError as error:
        raise DataError(_not_json(error), f"{path}:{error.lineno}") from error
    except RecursionError as error:
        raise DataError("nested too deeply", str(path)) from error
    faults = _Faults(path, "row ")
    for number, row in enumerate(rows[:limit], start=1):
        if isinstance(row, dict):
            yield number, row
        else:
            faults.add(number, "not a JSON object ({...})")
    faults.check()


def read_csv(path: Path, limit: int | None = None) -> Iterator[NumberedRow]:
    """Yield line number and row; every cell is text, including ``NA`` and ``null``.

    Raises:
        DataError: The file is broken; names the line.
        OSError: The file cannot be read.
    """
    csv.field_size_limit(_MAX_CELL)
    faults = _Faults(path)
    with _open(path) as stream:
        reader = csv.reader(_text_lines(stream, path), strict=True)
        try:
            header = next(reader, [])
            if len(set(header)) != len(header):
                raise DataError("two columns have the same name", f"{path}:1")
            start = reader.line_num + 1
            for cells in islice(reader, limit):
                if len(cells) == len(header):
                    yield start, dict(zip(header, cells, strict=True))
                elif cells:
                    faults.add(start, f"{len(cells)} cells under {len(header)} columns")
                start = reader.line_num + 1
        except csv.Error as error:
            faults.add(reader.line_num, f"not CSV: {error}")
    faults.check()


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _lines(stream: IO[bytes], path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield line numbers and lines; report a damaged compressed file with its line."""
    number = 0
    try:
        for number, line in enumerate(stream, start=1):
            yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"the compressed file is damaged: {error}", f"{path}:{number + 1}"
        ) from error


def _text_lines(stream: IO[bytes], path: Path) -> Iterator[str]:
    for number, raw in _lines(stream, path):
        try:
            yield _decoded(raw, first=number == 1)
        except UnicodeDecodeError as error:
            raise DataError(_not_utf8(raw, error), f"{path}:{number}") from error


def _decoded(raw: bytes, *, first: bool) -> str:
    return raw.decode("utf-8-sig" if first else "utf-8")


def _not_utf8(raw: bytes, error: UnicodeDecodeError) -> str:
    return f"not UTF-8 text (byte 0x{raw[error.start]:02x}); save the file as UTF-8"


def _not_json(error: json.JSONDecodeError) -> str:
    cut = error.pos >= len(error.doc.rstrip())
    ending = "; the text ends too early" if cut else ""
    return f"not JSON: {error.msg} at column {error.colno}{ending}"
