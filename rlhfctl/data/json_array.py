"""The values of a JSON array, of whose text only a window is in memory."""

from __future__ import annotations

import codecs
import json
import re
from typing import IO, TYPE_CHECKING, Any

from rlhfctl.data.compression import blocks
from rlhfctl.data.utf8 import not_utf8
from rlhfctl.errors import DataError
from rlhfctl.json_text import parse_json, parse_value

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_WHITE = re.compile(r"[ \t\n\r]*")
_FEWEST = 1 << 20
# Characters before the end of the window within which an error may come from the end.
_NEAR_END = 32


class ArrayText:
    """The text of a file that is one array.

    Args:
        stream: The file, decompressed.
        path: Its path, for errors.
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._path = path
        self._texts = _texts(stream, path)
        self._text = ""
        self._ended = False
        # Line and column of the window's first character, from 0.
        self._line = self._column = 0

    def values(self) -> Iterator[Any]:
        """Yield the values of the array.

        Raises:
            DataError: The text is no JSON array; names the line.
        """
        place = self._skip(0)
        if self._text[place : place + 1] != "[":
            raise self._error(place, "")
        after = place + 1
        place = self._skip(after)
        if self._text[place : place + 1] == "]":
            self._end(place + 1, "[]")
            return
        before = "["
        while True:
            value, after = self._value(place, after, before)
            yield value
            before = "[0"
            if after > len(self._text) // 2:
                self._drop(after)
                after = 0
            place = self._skip(after)
            mark = self._text[place : place + 1]
            if mark == "]":
                self._end(place + 1, "[0]")
                return
            if mark != ",":
                raise self._error(after, before)
            place = self._skip(place + 1)

    def _value(self, place: int, after: int, before: str) -> tuple[Any, int]:
        """Return the value at a place, and the place after it.

        Args:
            place: Its first character.
            after: Place after the value before, from where the text is parsed again for an error.
            before: Text that makes what follows `after` an array.
        """
        while True:
            try:
                value, end = parse_value(self._text, place)
                if end < len(self._text) or self._ended:
                    return value, end
            except json.JSONDecodeError as error:
                near = error.pos >= len(self._text) - _NEAR_END
                cut = near or error.msg.startswith("Unterminated string")
                if self._ended or not cut:
                    raise self._error(after, before) from error
            except ValueError as error:  # nested too deeply, or a number of thousands of digits
                raise DataError(str(error), str(self._path)) from error
            self._grow()

    def _skip(self, place: int) -> int:
        """Return the place of the next character that is not white; the text's end if none is."""
        while True:
            white = _WHITE.match(self._text, place)
            place = white.end() if white else place
            if place < len(self._text) or self._ended:
                return place
            self._grow()

    def _end(self, place: int, before: str) -> None:
        self._drop(place)
        if self._skip(0) < len(self._text):
            raise self._error(0, before)

    def _grow(self) -> None:
        """Read as much again, so that a long value is parsed a few times only."""
        parts, size = [self._text], 0
        while size < max(_FEWEST, len(self._text)):
            text = next(self._texts, None)
            if text is None:
                self._ended = True
                break
            parts.append(text)
            size += len(text)
        self._text = "".join(parts)

    def _drop(self, count: int) -> None:
        """Forget the first characters of the window."""
        self._line, self._column = self._line_and_column(count)
        self._text = self._text[count:]

    def _line_and_column(self, place: int) -> tuple[int, int]:
        """Return line and column of a place, from 0."""
        lines = self._text.count("\n", 0, place)
        if not lines:
            return self._line, self._column + place
        return self._line + lines, place - self._text.rindex("\n", 0, place) - 1

    def _error(self, after: int, before: str) -> DataError:
        """Return the error that Python's parser has for the text from a place on.

        Args:
            after: The place.
            before: Text that makes what follows an array.
        """
        try:
            parse_json(before + self._text[after:])
        except json.JSONDecodeError as error:
            place = error.pos - len(before) + after
            line, column = self._line_and_column(place)
            early = self._ended and place >= len(self._text.rstrip())
            ending = "; the text ends too early" if early else ""
            what = f"not JSON: {error.msg} at column {column + 1}{ending}"
            return DataError(what, f"{self._path}:{line + 1}")
        except ValueError as error:
            return DataError(str(error), str(self._path))
        return DataError("the file is not a JSON array", str(self._path))


def _texts(stream: IO[bytes], path: Path) -> Iterator[str]:
    """Yield the text of a file in parts; the first may start with a byte order mark."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    line = 1
    try:
        for block in blocks(stream, path):
            yield decoder.decode(block)
            line += block.count(b"\n")
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raw = bytes(error.object)
        line += raw.count(b"\n", 0, error.start)
        raise DataError(not_utf8(raw, error), f"{path}:{line}") from error
