r"""Transcripts in the style of HH-RLHF: "\n\nHuman: ...\n\nAssistant: ...".

Line endings may be "\n", "\r\n" or "\r"; transcripts are returned with "\n".
"""

from __future__ import annotations

import re

ANSWER_MARK = "\n\nAssistant:"
QUESTION_MARK = "\n\nHuman:"
_START = re.compile(r"\s*Human:")
_MARK = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class TranscriptError(Exception):
    """A transcript that cannot be used; the message is the cause."""


def is_transcript(text: str) -> bool:
    """Return True for text that starts with a human turn."""
    return _START.match(text) is not None


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
    mark = text.rfind(ANSWER_MARK)
    if mark < 0 or not is_transcript(text):
        return None
    end = mark + len(ANSWER_MARK)
    if QUESTION_MARK in text[end:]:
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
    if not is_transcript(text):
        return [{"role": "user", "content": text.strip()}]
    marks = list(_MARK.finditer(text))
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
