"""Arrays that are parsed value by value, against Python's parser of the whole text."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from rlhfctl.data import compression, json_array
from rlhfctl.data.files import read_local
from rlhfctl.data.json_array import ArrayText
from rlhfctl.data.streamed_rows import StreamedRows
from rlhfctl.errors import DataError

PATH = Path("x.json")
TEXT = '\n[ {"a": "é\\n\\u00e9,]", "b": [-1.5e3, true,\n null]},\n12,"x\\"", {"c": {}}\n ]\n \n'


def whole(raw: bytes) -> object:
    """Return the values, or the message of the error, from the text as a whole."""
    try:
        text = raw.decode("utf-8-sig")
        value = json.loads(text)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"0x{raw[error.start]:02x}"
        return f"x.json:{line}: not UTF-8 text (byte {byte}); save the file as UTF-8"
    except json.JSONDecodeError as error:
        ends = error.pos >= len(text.rstrip())
        ending = "; the text ends too early" if ends else ""
        return f"x.json:{error.lineno}: not JSON: {error.msg} at column {error.colno}{ending}"
    return value


def by_value(raw: bytes) -> object:
    try:
        return list(ArrayText(io.BytesIO(raw), PATH).values())
    except DataError as error:
        return str(error)


@pytest.fixture(params=[1, 5, 1 << 20])
def _block(request, monkeypatch):
    monkeypatch.setattr(compression, "_BLOCK", request.param)
    monkeypatch.setattr(json_array, "_FEWEST", request.param)


@pytest.mark.usefixtures("_block")
def test_values_and_errors_are_those_of_the_whole_text():
    raw = TEXT.encode()
    start = raw.index(b"[") + 1
    texts = [
        raw,
        b"\xef\xbb\xbf" + raw,
        b"[]",
        b" [ ] ",
        b"[1]x",
        b"[1,]",
        b"[,1]",
        b"[",
        b"[1",
        b"[1 2]",
    ]
    for at in range(start, len(raw)):
        texts += [raw[:at], raw[:at] + raw[at + 1 :]]
        texts += [
            raw[:at] + mark + raw[at + 1 :] for mark in (b"]", b"}", b",", b'"', b"x", b"\xff")
        ]
    different = {text: (by_value(text), whole(text)) for text in texts}
    # A text that is broken twice has its first error.
    wrong = {
        text: pair
        for text, pair in different.items()
        if pair[0] != pair[1] and "not UTF-8" not in str(pair[1])
    }
    assert wrong == {}
    assert len({str(pair[1]) for pair in different.values()}) > 100


@pytest.mark.usefixtures("_block")
def test_text_that_is_not_utf8_has_its_line():
    assert by_value(b'[1,\n"\xff"]') == whole(b'[1,\n"\xff"]')
    assert by_value(b'[1,\n"\xc3') == whole(b'[1,\n"\xc3')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 128 + "]" * 128, None),
        ("[" * 129 + "]" * 129, "nested too deeply"),
        ("[" * 5000, "nested too deeply"),
        ("[" + "1" * 5000 + "]", "thousands of digits"),
    ],
)
def test_depth_and_digits_have_a_limit(text, said):
    found = by_value(text.encode())
    assert found == json.loads(text) if said is None else f"x.json: {said}" in str(found) or found


def test_a_large_array_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(compression, "_BLOCK", 1000)
    monkeypatch.setattr(json_array, "_FEWEST", 1000)
    longest = [0]
    grow = ArrayText._grow

    def watched(self):
        grow(self)
        longest[0] = max(longest[0], len(self._text))

    monkeypatch.setattr(ArrayText, "_grow", watched)
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"prompt": "p" * 150, "n": n} for n in range(2000)], indent=1))
    raw = read_local(str(path), "train", streaming=True)
    assert isinstance(raw.rows, StreamedRows)
    assert [row["n"] for row in raw.rows] == list(range(2000))
    assert raw.place(1999) == f"{path}:row 2000"
    assert longest[0] < 5000
