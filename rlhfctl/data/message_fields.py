"""Fields of messages besides role and content that chat templates read, such as tool calls.

Their types differ from row to row, so a message keeps them as one text of JSON.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rlhfctl.data.messages import MessageError
from rlhfctl.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIELDS = "other_fields"
"""Key of a message's further fields."""
_PASSED = (
    *("tool_calls", "tool_call_id", "tools"),
    *("reasoning_content", "reasoning", "thinking"),
)


def parted(turn: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Return a message of a source, and its further fields under `FIELDS`, if it has any.

    A message that calls a tool needs no content.

    Raises:
        MessageError: A field is no JSON value.
    """
    if isinstance(turn.get(FIELDS), str):
        return turn, {FIELDS: turn[FIELDS]}  # a message of ours
    passed = [*_PASSED, *(["name"] if turn.get("role") == "tool" else [])]
    fields = {name: turn[name] for name in passed if turn.get(name)}
    if not fields:
        return turn, {}
    if "tool_calls" in fields and turn.get("content") is None and "value" not in turn:
        turn = {**turn, "content": ""}
    try:
        text = json.dumps(fields, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError) as error:
        raise MessageError("has a message with fields that are not JSON") from error
    return turn, {FIELDS: text}


def calls_tool(message: Mapping[str, str]) -> bool:
    """Return whether a message calls a tool."""
    return "tool_calls" in fields_of(message)


def whole_turns(messages: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return messages with all of their fields, as a chat template reads them."""
    return [
        {"role": message["role"], "content": message["content"]} | fields_of(message)
        for message in messages
    ]


def fields_of(message: Mapping[str, str]) -> dict[str, Any]:
    """Return the further fields of a message."""
    text = message.get(FIELDS)  # None beside messages that have fields
    fields: dict[str, Any] = parse_json(text) if text else {}
    return fields
