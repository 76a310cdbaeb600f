r"""Transcripts: "\n\nHuman: ...\n\nAssistant: ..." (HH-RLHF), "### Human: ...### Assistant: ..." (Guanaco).

Line endings may be "\n", "\r\n" or "\r"; transcripts are returned with "\n".
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class _Style:
    """Marks of the turns.

    Attributes:
        before: Text before each speaker; optional at the start where it is white.
        start: What a transcript starts with.
        mark: Each mark, its group the speaker.
    """

    before: str
    start: re.Pattern[str]
    mark: re.Pattern[str]


_STYLES = (
    _Style("\n\n", re.compile(r"\s*Human:"), re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")),
    _Style("### ", re.compile(r"\s*### Human:"), re.compile(r"### (Human|Assistant):")),
)
_ROLES = {"Human": "user", "Assistant": "assistant"}


class TranscriptError(Exception):
    """A transcript that cannot be used; the message is the cause."""


def is_transcript(text: str) -> bool:
    """Return True for text that starts with a human turn."""
    return _style(text) is not None


def _style(text: str) -> _Style | None:
    return next((style for style in _STYLES if style.start.match(text)), None)


def unified(text: str) -> str:
    r"""Return a transcript with "\n" as line ending; other text unchanged."""
    if "\r" not in text or not is_transcript(text):
        return text
    return text.replace("\r\n", "\n").replace("\r", "\n")


def split_transcript(text: str) -> tuple[str, str] | None:
    """Split a transcript after its last answer mark; return None for other text.

    Raises:
        TranscriptError: The transcript ends with a question.
    """
    text = unified(text)
    style = _style(text)
    answer_mark = "" if style is None else f"{style.before}Assistant:"
    mark = text.rfind(answer_mark)
    if style is None or mark < 0:
        return None
    end = mark + len(answer_mark)
    if f"{style.before}Human:" in text[end:]:
        raise TranscriptError("transcript ends with a question")
    return text[:end], text[end:]


def turns_of(text: str) -> list[dict[str, str]]:
    """Return the turns of a transcript as messages; other text is one user message.

    White space around turns is removed. Consecutive turns of one speaker become one message, since
    many chat templates require alternating roles. A final mark without text gives no message.

    Raises:
        TranscriptError: A turn before the last is empty.
    """
    text = unified(text)
    style = _style(text)
    if style is None:
        return [{"role": "user", "content": text.strip()}]
    marks = list(style.mark.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    turns: list[dict[str, str]] = []
    for number, (mark, end) in enumerate(zip(marks, ends, strict=True)):
        role, content = _ROLES[mark[1]], text[mark.end() : end].strip()
        if not content:
            if number < len(marks) - 1:
                raise TranscriptError("transcript has an empty turn")
        elif turns and turns[-1]["role"] == role:
            turns[-1]["content"] += "\n\n" + content
        else:
            turns.append({"role": role, "content": content})
    return turns
