"""Messages in the shapes that data sets have: ShareGPT's keys, content parts, JSON in a cell."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlhfctl.json_text import parse_json

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_ROLE_NAMES = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_KEY_PAIRS = (("role", "content"), ("from", "value"))
_LOOKS_LIKE_MESSAGES = re.compile(r"""\[?\s*\{.*?["'](role|content|from|value)["']""", re.DOTALL)


class MessageError(Exception):
    """An unusable message; the text is the cause, without the column's name."""


def role_and_content(turn: Any) -> tuple[Any, Any]:
    """Return role and content of a message by either pair of keys, ``from``/``value`` included.

    Raises:
        MessageError: It has neither pair.
    """
    if not isinstance(turn, Mapping):
        raise MessageError("has a message without role and content")
    for role_key, content_key in _KEY_PAIRS:
        if role_key in turn and content_key in turn:
            break
    else:
        raise MessageError("has a message without role and content")
    role = turn[role_key]
    return (_ROLE_NAMES.get(role, role) if isinstance(role, str) else role), turn[content_key]


def text_of_parts(content: Any) -> Any:
    """Return the concatenated text of a list of content parts; other contents unchanged.

    As in chat templates that accept parts, nothing is put between them.

    Raises:
        MessageError: A part is an image, audio or another kind that is not text.
    """
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        return content
    texts = []
    for part in content:
        kind = part.get("type", "text")
        if kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
            raise MessageError(f"has a content part of type {kind}; only text is read")
        texts.append(part["text"])
    return "".join(texts)


def parsed_cell(value: Any) -> Any:
    """Return a conversation that a cell holds as text (JSON or Python) as a list.

    Other values are returned unchanged.

    Raises:
        MessageError: The text looks like a conversation and cannot be parsed.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    if not _LOOKS_LIKE_MESSAGES.match(value.lstrip()[:2000]):
        return value
    parsed = parsed_text(value)
    if parsed is None:
        if (
            any(all(key in value for key in keys) for keys in _KEY_PAIRS)
            and value.lstrip()[0] == "["
        ):
            raise MessageError(
                "looks like a conversation as text, but is neither JSON nor a Python list"
            )
        return value
    turns = [parsed] if isinstance(parsed, Mapping) else parsed
    is_conversation = isinstance(turns, list) and all(
        isinstance(turn, Mapping)
        and any(role in turn and content in turn for role, content in _KEY_PAIRS)
        for turn in turns
    )
    return turns if turns and is_conversation else value


def parsed_text(value: str) -> Any:
    """Return the JSON or Python literal in a text; None if it is neither."""
    try:
        return parse_json(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def list_in(value: Any) -> Sequence[Any] | None:
    """Return a cell that is a list, or text that holds one; None for other values."""
    if isinstance(value, str):
        value = parsed_text(value)
    return value if isinstance(value, (list, tuple)) else None
