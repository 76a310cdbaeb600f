r"""Normalisation of rows in any documented format to the format that every stage reads.

The formats are TRL's ("Dataset formats and types" in its documentation): standard, where values
are text, and conversational, where they are lists of messages with role and content. Differences
from TRL: an implicit prompt ends at a turn or a word, never inside one; Anthropic's transcripts
("\n\nHuman: ... \n\nAssistant: ...") are split before the last answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlhfctl.data.message_fields import FIELDS, calls_tool, is_trained_on, parted
from rlhfctl.data.messages import (
    ROLES,
    MessageError,
    parsed_cell,
    role_and_content,
    text_of_parts,
)
from rlhfctl.data.transcripts import TranscriptError, split_transcript, turns_of, unified

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Message = dict[str, str]
Messages = list[Message]
Value = str | Messages
Row = dict[str, Any]


class BadRowError(Exception):
    """An unusable row; the message is the cause that the row is counted under."""


class LeftOutError(Exception):
    """A row that is not needed, such as a tied vote; the message is the cause it is counted under.

    Unlike a bad row, it is no fault of the data.
    """


def is_conversation(value: object) -> TypeIs[Messages]:
    """Return True for a list of messages, False for text."""
    return isinstance(value, list)


def demonstration(row: Mapping[str, Any]) -> Row:
    """Return ``prompt`` and ``completion`` of a demonstration; plain text has an empty prompt.

    Raises:
        BadRowError: The row cannot be used.
    """
    if "messages" in row:
        turns = _through_last_answer(_messages(row["messages"], "messages"))
        prompt, completion = _divide(None, turns, "messages")
    elif "completion" in row:
        prompt, completion = _divide(row["prompt"], row["completion"], "completion")
    else:
        text = text_of(row["text"], "text")
        prompt, completion = _split_transcript(text) or ("", text)
    _refuse_empty(completion, "response")
    if "text" not in row:
        _refuse_empty(prompt, "prompt")
    return {"prompt": prompt, "completion": completion}


def comparison(row: Mapping[str, Any], *, needs_prompt: bool = True) -> Row:
    """Return ``prompt``, ``chosen``, ``rejected`` and any of the optional columns.

    These are ``annotator``, ``source``, ``margin`` (None if it is absent or not a finite number)
    and ``weight``.

    Args:
        row: The row; without ``prompt``, the responses begin with the same prompt.
        needs_prompt: Refuse an empty prompt.

    Raises:
        BadRowError: The row cannot be used; identical responses are unusable too.
    """
    prompt, chosen, rejected = _both(row)
    if needs_prompt and not content(prompt).strip():
        explicit = row.get("prompt") is not None
        raise BadRowError(
            "empty prompt" if explicit else "empty prompt: the two texts have no common beginning"
        )
    _refuse_empty(chosen, "response")
    _refuse_empty(rejected, "response")
    if _compared(chosen) == _compared(rejected):
        raise BadRowError("chosen equals rejected")
    result: Row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    for name in ("annotator", "source"):
        if name in row:
            result[name] = "" if row[name] is None else str(row[name])
    if "margin" in row:
        result["margin"] = _finite(row["margin"])
    if "weight" in row:
        result["weight"] = float(row["weight"])
    return result


def prompt_of(row: Mapping[str, Any]) -> Row:
    """Return the ``prompt`` of a row in any format.

    Raises:
        BadRowError: The row cannot be used, or has no prompt.
    """
    prompt: Value
    if "messages" in row:
        turns = _messages(row["messages"], "messages")
        prompt = turns[:-1] if turns and turns[-1]["role"] == "assistant" else turns
    elif "chosen" in row:
        prompt = _both(row)[0]
    elif "completion" in row:
        prompt = _divide(row["prompt"], row["completion"], "completion")[0]
    elif "text" in row:
        split = _split_transcript(text_of(row["text"], "text"))
        if split is None:
            raise BadRowError("text without a prompt")
        prompt = split[0]
    else:
        prompt = _value(row["prompt"], "prompt")
    _check_prompt(prompt)
    _refuse_empty(prompt, "prompt")
    return {"prompt": prompt}


NORMALISERS: dict[str, Callable[[Mapping[str, Any]], Row]] = {
    "demonstrations": demonstration,
    "comparisons": comparison,
    "prompts": prompt_of,
}


def as_chat(row: Row) -> Row:
    """Return a normalised row with its texts as messages; messages are returned unchanged.

    Turns of a transcript become messages. Other prompts become one user message. White space
    around texts is removed.

    Raises:
        BadRowError: The row has no user turn, or an empty turn.
    """
    prompt = row["prompt"]
    if is_conversation(prompt):
        return row
    if not prompt:  # plain text as a whole
        raise BadRowError("text without a prompt")
    turns = _turns(prompt)
    answers = {
        name: [{"role": "assistant", "content": row[name].strip()}]
        for name in ("completion", "chosen", "rejected")
        if name in row
    }
    _check_prompt(turns)
    _refuse_empty(turns, "prompt")
    return row | {"prompt": turns} | answers


def _turns(prompt: str) -> Messages:
    try:
        return turns_of(prompt)
    except TranscriptError as error:
        raise BadRowError(str(error)) from error


def content(value: Value) -> str:
    """Return the text of a value without roles, contents joined by an empty line."""
    if is_conversation(value):
        return "\n\n".join(message["content"] for message in value)
    return value


def _compared(value: Value) -> list[str]:
    """Return what tells responses apart: their text, and the fields of messages."""
    fields = [turn[FIELDS] for turn in value if turn.get(FIELDS)] if is_conversation(value) else []
    return [content(value).strip(), *fields]


def _both(row: Mapping[str, Any]) -> tuple[Value, Value, Value]:
    """Return prompt, chosen and rejected, extracting an implicit prompt."""
    prompt_cell = row.get("prompt")
    sides = {name: _parsed(row[name], name) for name in ("chosen", "rejected")}
    one, two = sides.values()
    if prompt_cell is None and isinstance(one, str) and isinstance(two, str):
        return _split_pair(text_of(one, "chosen"), text_of(two, "rejected"))
    prompt, chosen = _divide(prompt_cell, one, "chosen")
    other, rejected = _divide(prompt_cell, two, "rejected")
    if is_conversation(chosen) != is_conversation(rejected):
        raise BadRowError("text beside messages")
    if prompt != other:
        raise BadRowError("chosen and rejected answer different prompts")
    return prompt, chosen, rejected


def _split_pair(chosen: str, rejected: str) -> tuple[str, str, str]:
    halves, others = _split_transcript(chosen), _split_transcript(rejected)
    if halves is not None and others is not None:
        if halves[0] != others[0]:
            raise BadRowError("chosen and rejected answer different prompts")
        return halves[0], halves[1], others[1]
    cut = next(
        (place for place, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b),
        min(len(chosen), len(rejected)),
    )
    while cut and not (chosen[cut : cut + 1].isspace() and rejected[cut : cut + 1].isspace()):
        cut -= 1
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _split_transcript(text: str) -> tuple[str, str] | None:
    """Split a transcript after its last answer mark; return None for other text."""
    try:
        return split_transcript(text)
    except TranscriptError as error:
        raise BadRowError(str(error)) from error


def _divide(prompt_cell: Any, response: Any, column: str) -> tuple[Value, Value]:
    """Convert prompt and response to the same format; earlier turns join the prompt."""
    response = _parsed(response, column)
    if isinstance(response, str):
        answer = text_of(response, column)
        if prompt_cell is None:
            raise BadRowError("prompt is missing")
        prompt = _value(prompt_cell, "prompt")
        if is_conversation(prompt):
            _check_prompt(prompt)
            return prompt, [{"role": "assistant", "content": answer}]
        return prompt, answer
    turns = _messages(response, column)
    if not turns or turns[-1]["role"] != "assistant":
        raise BadRowError("no assistant turn")
    before, answer_turn = turns[:-1], turns[-1:]
    prompt = _whole_prompt(prompt_cell, before)
    _check_prompt(prompt)
    return prompt, answer_turn


def _whole_prompt(prompt_cell: Any, before: Messages) -> Messages:
    if prompt_cell is None:
        return before
    prompt = _value(prompt_cell, "prompt")
    if not is_conversation(prompt):
        # some data sets have the first question as text next to the whole conversation
        if any(turn["role"] == "user" for turn in before):
            return before
        prompt = [{"role": "user", "content": prompt}]
    return before if before[: len(prompt)] == prompt else prompt + before


def _through_last_answer(turns: Messages) -> Messages:
    answers = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    trained = [place for place in answers if is_trained_on(turns[place])]
    if answers and not trained:
        raise LeftOutError("conversation whose answers all have the weight 0")
    return turns[: trained[-1] + 1] if trained else []


def _check_prompt(prompt: Value) -> None:
    if is_conversation(prompt):
        if not any(turn["role"] == "user" for turn in prompt):
            raise BadRowError("no user turn")
        if prompt[-1]["role"] == "assistant":
            raise BadRowError("prompt ends with an assistant turn")


def _refuse_empty(value: Value, name: str) -> None:
    if is_conversation(value) and any(calls_tool(turn) for turn in value[-1:]):
        return
    turns = [turn["content"] for turn in value[-1:]] if is_conversation(value) else [value]
    if not any(turn.strip() for turn in turns):
        raise BadRowError(f"empty {name}")


def _value(value: Any, column: str) -> Value:
    value = _parsed(value, column)
    return unified(text_of(value, column)) if isinstance(value, str) else _messages(value, column)


def _parsed(value: Any, column: str) -> Any:
    """Return a cell; a conversation that it holds as text becomes a list."""
    try:
        return parsed_cell(value)
    except MessageError as error:
        raise BadRowError(f"{column} {error}") from error


def _messages(value: Any, column: str) -> Messages:
    value = _parsed(value, column)
    if value is None:
        raise BadRowError(f"{column} is missing")
    if isinstance(value, Mapping):  # ShareGPT's pairs have single messages
        value = [value]
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise BadRowError(f"{column} is neither text nor messages")
    return [_message(turn, column) for turn in value]


def _message(turn: Any, column: str) -> Message:
    if not isinstance(turn, Mapping):
        raise BadRowError(f"{column} has a message without role and content")
    try:
        turn, fields = parted(turn)
        role, body = role_and_content(turn)
        body = text_of_parts(body)
    except MessageError as error:
        raise BadRowError(f"{column} {error}") from error
    if not isinstance(role, str) or role not in ROLES:
        raise BadRowError("unknown role")
    return {"role": role, "content": text_of(body, f"a content in {column}")} | fields


def text_of(value: Any, column: str) -> str:
    """Return a cell that is text.

    Raises:
        BadRowError: It is missing, of another type, or not valid Unicode.
    """
    if value is None:
        raise BadRowError(f"{column} is missing")
    if not isinstance(value, str):
        raise BadRowError(f"{column} is not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRowError(f"{column} is not valid Unicode") from error
    return value


def _finite(value: Any) -> float | None:
    """Return a cell as a number; None if it is not a finite one."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number - number == 0 else None
