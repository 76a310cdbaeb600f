"""Fields of messages besides role and content that chat templates read, such as tool calls.

Their types differ from row to row, so a message keeps them as one text of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlhfctl.data.messages import MessageError, parsed_text
from rlhfctl.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Sequence

FIELDS = "other_fields"
"""Key of a message's further fields."""
_WEIGHT = "weight"
"""Field of OpenAI's fine-tuning files: 0 on an answer that is not trained on."""
_PASSED = (
    *("tool_calls", "tool_call_id", "tools"),
    *("reasoning_content", "reasoning", "thinking"),
)


def parted(turn: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Return a message of a source, and its further fields under `FIELDS`, if it has any.

    A message that calls a tool needs no content. ShareGPT's `function_call` becomes such a message.

    Raises:
        MessageError: A field is no JSON value, or a function call is not JSON.
    """
    if "function_call" in (turn.get("from"), turn.get("role")):
        turn = _calling(turn)
    if isinstance(turn.get(FIELDS), str):
        return turn, {FIELDS: turn[FIELDS]}  # a message of ours
    passed = [*_PASSED, *(["name"] if turn.get("role") == "tool" else [])]
    fields = {name: turn[name] for name in passed if turn.get(name)}
    fields |= {_WEIGHT: 0} if _without_loss(turn) else {}
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


def _calling(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call, or a list of calls, as an assistant's message in OpenAI's form.

    LLaMA-Factory's are the JSON of ``{"name": ..., "arguments": {...}}``.
    """
    value = turn.get("value", turn.get("content"))
    parsed = parsed_text(value) if isinstance(value, str) else value
    calls = parsed if isinstance(parsed, list) else [parsed]
    functions = []
    for call in calls:
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            raise MessageError("has a function_call that is not JSON with a name and arguments")
        arguments = call.get("arguments", {})
        if isinstance(arguments, str):
            arguments = parsed_text(arguments)
        if not isinstance(arguments, Mapping):
            raise MessageError("has a function_call whose arguments are not a JSON object")
        functions.append({"name": call["name"], "arguments": dict(arguments)})
    if not functions:
        raise MessageError("has a function_call that is not JSON with a name and arguments")
    calls = [{"type": "function", "function": function} for function in functions]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def calls_tool(message: Mapping[str, str]) -> bool:
    """Return whether a message calls a tool."""
    return "tool_calls" in fields_of(message)


def is_trained_on(message: Mapping[str, Any]) -> bool:
    """Return False for a message of weight 0, which has no part in the loss of SFT."""
    return fields_of(message).get(_WEIGHT, message.get(_WEIGHT)) != 0


def _without_loss(turn: Mapping[str, Any]) -> bool:
    """Return whether a source says so: OpenAI's `weight`, axolotl's `training`."""
    weight = turn.get(_WEIGHT)
    numeric = isinstance(weight, int | float) and not isinstance(weight, bool)
    return (numeric and weight == 0) or turn.get("training") is False


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
