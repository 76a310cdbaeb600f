"""Parser of CSV files, with line numbers for rows and errors, and a delimiter found by content."""

from __future__ import annotations

import csv
import re
from itertools import chain, islice
from typing import IO, TYPE_CHECKING

from rlhfctl.data.compression import lines, open_data
from rlhfctl.data.form_table import COLUMN_NAMES
from rlhfctl.data.text_files import Faults
from rlhfctl.data.utf8 import decoded, not_utf8
from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rlhfctl.data.text_files import NumberedRow

# csv's default limit of 128 KiB per cell is too small for a long conversation
_MAX_CELL = 1 << 27
_DELIMITERS = (",", ";", "\t", "|")
_SHOWN_DELIMITERS = {"\t": "tabs"}
_HEADER_LINES = 20


def read_csv(
    path: Path, limit: int | None = None, raw_file: IO[bytes] | None = None
) -> Iterator[NumberedRow]:
    """Yield line number and row; every cell is text, including ``NA`` and ``null``.

    The header decides the delimiter. White space around column names is removed.

    Raises:
        DataError: The file is broken; names the line.
        OSError: The file cannot be read.
    """
    csv.field_size_limit(_MAX_CELL)
    with open_data(path, raw_file) as stream:
        text = _text_lines(stream, path)
        start = list(islice(text, _HEADER_LINES))
        delimiter = _delimiter(start)
        faults = Faults(path, hint=_advice(delimiter))
        reader = csv.reader(
            chain(start, text),
            strict=True,
            delimiter=delimiter,
            # `a, "b"`: without this the quotes are part of the cells
            skipinitialspace=bool(start and re.search(rf'{re.escape(delimiter)} +"', start[0])),
        )
        try:
            header = [name.strip() for name in next(reader, [])]
            if len(set(header)) != len(header):
                raise DataError("two columns have the same name", f"{path}:1")
            line = reader.line_num + 1
            for cells in islice(reader, limit):
                if len(cells) == len(header):
                    yield line, dict(zip(header, cells, strict=True))
                elif cells:
                    faults.add(line, f"{len(cells)} cells under {len(header)} columns")
                line = reader.line_num + 1
        except csv.Error as error:
            faults.add(reader.line_num, f"not CSV: {error}")
    faults.check()


def delimiter_note(path: Path) -> str | None:
    """Return a sentence about a delimiter other than the comma; None for the comma.

    Raises:
        DataError: The first lines are not UTF-8, or the file is an archive.
        OSError: The file cannot be read.
    """
    with open_data(path) as stream:
        delimiter = _delimiter(list(islice(_text_lines(stream, path), _HEADER_LINES)))
    return None if delimiter == "," else f"the cells seem to be separated by {_shown(delimiter)}"


def _delimiter(start: list[str]) -> str:
    """Return the delimiter under which the header has the most documented column names.

    Among equals, it is the comma if it separates anything, else what gives the most columns.
    """

    def rank(delimiter: str) -> tuple[int, bool, int]:
        names = [name.strip().casefold() for name in _header(start, delimiter)]
        documented = sum(name in COLUMN_NAMES for name in names)
        return documented, delimiter == "," and len(names) > 1, len(names)

    return max(_DELIMITERS, key=rank)


def _header(start: list[str], delimiter: str) -> list[str]:
    try:
        return next(csv.reader(start, delimiter=delimiter), [])
    except csv.Error:
        return []


def _advice(delimiter: str) -> str:
    advice = "fix the file; no rows were loaded"
    if delimiter == ",":
        return advice
    return f"the cells seem to be separated by {_shown(delimiter)}; {advice}"


def _shown(delimiter: str) -> str:
    return _SHOWN_DELIMITERS.get(delimiter, delimiter)


def _text_lines(stream: IO[bytes], path: Path) -> Iterator[str]:
    for number, raw in lines(stream, path):
        try:
            yield decoded(raw, first=number == 1)
        except UnicodeDecodeError as error:
            raise DataError(not_utf8(raw, error), f"{path}:{number}") from error
