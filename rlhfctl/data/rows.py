r"""Normalisation of rows in any documented format to the format that every stage reads.

The formats are TRL's ("Dataset formats and types" in its documentation): standard, where values
are text, and conversational, where they are lists of messages with role and content. Differences
from TRL: an implicit prompt ends at a turn or a word, never inside one; Anthropic's transcripts
("\n\nHuman: ... \n\nAssistant: ...") are split before the last answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Message = dict[str, str]
Messages = list[Message]
Value = str | Messages
Row = dict[str, Any]

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
ANSWER_MARK = "\n\nAssistant:"
_QUESTION_MARK = "\n\nHuman:"
_TRANSCRIPT_START = "Human:"


class BadRowError(Exception):
    """An unusable row; the message is the cause that the row is counted under."""


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
        text = _text(row["text"], "text")
        prompt, completion = _split_transcript(text) or ("", text)
    _refuse_empty(completion, "response")
    if "text" not in row:
        _refuse_empty(prompt, "prompt")
    return {"prompt": prompt, "completion": completion}


def comparison(row: Mapping[str, Any]) -> Row:
    """Return ``prompt``, ``chosen``, ``rejected`` and any ``annotator``, ``margin``, ``source``.

    Raises:
        BadRowError: The row cannot be used; identical responses are unusable too.
    """
    prompt, chosen, rejected = _both(row)
    _refuse_empty(chosen, "response")
    _refuse_empty(rejected, "response")
    if content(chosen).strip() == content(rejected).strip():
        raise BadRowError("chosen equals rejected")
    result: Row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    for name in ("annotator", "source"):
        if name in row:
            result[name] = "" if row[name] is None else str(row[name])
    if "margin" in row:
        result["margin"] = _number(row["margin"], "margin")
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
        split = _split_transcript(_text(row["text"], "text"))
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


def content(value: Value) -> str:
    """Return the text of a value without roles, contents joined by an empty line."""
    if is_conversation(value):
        return "\n\n".join(message["content"] for message in value)
    return value


def _both(row: Mapping[str, Any]) -> tuple[Value, Value, Value]:
    """Return prompt, chosen and rejected, extracting an implicit prompt."""
    prompt_cell = row.get("prompt")
    if prompt_cell is None and isinstance(row["chosen"], str) and isinstance(row["rejected"], str):
        return _split_pair(_text(row["chosen"], "chosen"), _text(row["rejected"], "rejected"))
    prompt, chosen = _divide(prompt_cell, row["chosen"], "chosen")
    other, rejected = _divide(prompt_cell, row["rejected"], "rejected")
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
    mark = text.rfind(ANSWER_MARK)
    if mark < 0 or not text.lstrip().startswith(_TRANSCRIPT_START):
        return None
    end = mark + len(ANSWER_MARK)
    if _QUESTION_MARK in text[end:]:
        raise BadRowError("transcript ends with a question")
    return text[:end], text[end:]


def _divide(prompt_cell: Any, response: Any, column: str) -> tuple[Value, Value]:
    """Convert prompt and response to the same format; earlier turns join the prompt."""
    if isinstance(response, str):
        answer = _text(response, column)
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
    last = max(
        (place for place, turn in enumerate(turns) if turn["role"] == "assistant"), default=-1
    )
    return turns[: last + 1]


def _check_prompt(prompt: Value) -> None:
    if is_conversation(prompt):
        if not any(turn["role"] == "user" for turn in prompt):
            raise BadRowError("no user turn")
        if prompt[-1]["role"] == "assistant":
            raise BadRowError("prompt ends with an assistant turn")


def _refuse_empty(value: Value, name: str) -> None:
    turns = [turn["content"] for turn in value[-1:]] if is_conversation(value) else [value]
    if not any(turn.strip() for turn in turns):
        raise BadRowError(f"empty {name}")


def _value(value: Any, column: str) -> Value:
    return _text(value, column) if isinstance(value, str) else _messages(value, column)


def _messages(value: Any, column: str) -> Messages:
    if value is None:
        raise BadRowError(f"{column} is missing")
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise BadRowError(f"{column} is neither text nor messages")
    return [_message(turn, column) for turn in value]


def _message(turn: Any, column: str) -> Message:
    if not isinstance(turn, Mapping) or "role" not in turn or "content" not in turn:
        raise BadRowError(f"{column} has a message without role and content")
    if not isinstance(turn["role"], str) or turn["role"] not in ROLES:
        raise BadRowError("unknown role")
    return {"role": turn["role"], "content": _text(turn["content"], f"a content in {column}")}


def _text(value: Any, column: str) -> str:
    if value is None:
        raise BadRowError(f"{column} is missing")
    if not isinstance(value, str):
        raise BadRowError(f"{column} is not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRowError(f"{column} is not valid Unicode") from error
    return value


def _number(value: Any, column: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise BadRowError(f"{column} is not a number") from error
    if number - number != 0:
        raise BadRowError(f"{column} is not finite")
    return number
