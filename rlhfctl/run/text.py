"""Escaping of unsafe characters in text from models and data sets."""

from __future__ import annotations

import re

# Control characters drive terminals, bidi marks reorder text, zero-width and tag characters are
# invisible, and a lone surrogate cannot be encoded as UTF-8.
_UNSAFE = re.compile(
    "["
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidi
    r"\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d"  # zero width, fillers
    r"\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    r"\u2028\u2029"  # line separators that only some programs honour
    r"\ud800-\udfff"
    r"\U000e0000-\U000e0fff"  # tags and variation selectors beyond the basic plane
    "]"
)


def visible(text: str) -> str:
    r"""Return the text with control, bidi, invisible and unencodable characters escaped.

    Newlines and tabs are kept. Characters up to U+FFFF become ``\uXXXX``, others ``\UXXXXXXXX``.
    Markup is not escaped: that is up to the HTML or rich renderer.
    """
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
