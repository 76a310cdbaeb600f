"""Text that came from a model or a data set, made safe to look at."""

from __future__ import annotations

import re

# Terminals act on controls, browsers and terminals reorder on bidi marks, and nobody sees a
# zero-width or tag character; a lone surrogate cannot even be written as UTF-8.
_UNSEEN = re.compile(
    "["
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidi
    r"\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d"  # zero width, fillers
    r"\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    r"\u2028\u2029"  # line ends that only some programs break at
    r"\ud800-\udfff"
    r"\U000e0000-\U000e0fff"  # tags and variation selectors beyond the basic plane
    "]"
)


def visible(text: str) -> str:
    r"""Return the text with every control, bidi, invisible or unwritable character spelt out.

    Newlines and tabs stay. A character up to U+FFFF becomes ``\uXXXX``, one beyond ``\UXXXXXXXX``.
    Markup is not touched: escaping for HTML or rich is the renderer's task.
    """
    return _UNSEEN.sub(_spelt_out, text)


def _spelt_out(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
