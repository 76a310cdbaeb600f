"""Instructions with an input and an output, questions with an answer: Alpaca, Dolly, PandaLM, Orca.

As text, instructions are rendered by Stanford Alpaca's template, whose prompts end with "### Response:" and
a line break (https://github.com/tatsu-lab/stanford_alpaca, train.py). As messages they are the
instruction, an empty line and the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.data.forms import answered, compared
from rlhfctl.data.messages import list_in
from rlhfctl.data.rows import BadRowError, LeftOutError, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.data.forms import Item, Kind, Source

_INTRODUCTION = "Below is an instruction that describes a task"
_WITH_INPUT = ", paired with an input that provides further context"
_REQUEST = "Write a response that appropriately completes the request."


def question_of(instruction: Any, more: Any = None, *, chat: bool) -> Any:
    """Return an instruction with its input, as a user message or by Alpaca's template.

    Raises:
        BadRowError: The instruction is missing or empty.
    """
    task = text_of(instruction, "instruction")
    context = "" if more is None else text_of(more, "input")
    if not task.strip():
        raise BadRowError("empty prompt")
    if chat:
        parts = [task.strip(), context.strip()]
        return [{"role": "user", "content": "\n\n".join(part for part in parts if part)}]
    if not context.strip():
        return f"{_INTRODUCTION}. {_REQUEST}\n\n### Instruction:\n{task}\n\n### Response:\n"
    return (
        f"{_INTRODUCTION}{_WITH_INPUT}. {_REQUEST}\n\n"
        f"### Instruction:\n{task}\n\n### Input:\n{context}\n\n### Response:\n"
    )


def plain_question(value: Any, column: str, *, chat: bool) -> Any:
    """Return a question as a user message, or as text with an empty line behind it.

    Raises:
        BadRowError: The question is missing or empty.
    """
    text = text_of(value, column)
    if not text.strip():
        raise BadRowError("empty prompt")
    return [{"role": "user", "content": text.strip()}] if chat else f"{text.rstrip()}\n\n"


def alpaca(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert a row with ``instruction``, ``input`` and ``output``, or a chosen and a rejected one.

    In comparisons ``output`` may be the list of both, the chosen one first (earlier LLaMA-Factory).
    ``system`` and ``history`` (earlier questions with answers) are LLaMA-Factory's.
    """
    question = question_of(row.get("instruction"), row.get("input"), chat=chat)
    system, history = row.get("system"), list_in(row.get("history")) or []
    if (system or history) and not chat:
        raise BadRowError("system or history beside an instruction needs as_chat: true")
    if chat:
        before = [] if not system else [{"role": "system", "content": text_of(system, "system")}]
        question = [*before, *_turns(history), *question]
    if kind == "prompts":
        yield {"prompt": question}
    elif kind == "demonstrations":
        yield answered(question, text_of(row.get("output"), "output"))
    elif "output" in row:
        both = list_in(row["output"])
        if both is None or len(both) != 2:
            raise BadRowError("output is not a list of two")
        yield compared(question, *both)
    else:
        yield compared(question, row.get("chosen"), row.get("rejected"))


def dolly(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert a row with ``instruction``, ``context`` and ``response``."""
    renamed = {
        "instruction": row.get("instruction"),
        "input": row.get("context"),
        "output": row.get("response"),
    }
    yield from alpaca(renamed, kind, chat)


def question_rows(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert a question with its answer (GSM8K, OpenOrca), or with two of them (Orca's pairs)."""
    question = plain_question(row.get("question"), "question", chat=chat)
    if kind == "prompts":
        yield {"prompt": question}
    elif kind == "demonstrations":
        column = "answer" if "answer" in row else "response"
        yield answered(question, text_of(row.get(column), column))
    else:
        yield compared(question, row.get("chosen"), row.get("rejected"))


PANDALM_PREFIX = "annotator"
_TIE, _SIDES = 0, {1: "response1", 2: "response2"}


def pandalm(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert a row with two responses and one vote per annotator: 0 tie, 1 first, 2 second."""
    question = question_of(row.get("instruction"), row.get("input"), chat=chat)
    if kind == "prompts":
        yield {"prompt": question}
        return
    for name in sorted(name for name in row if name.startswith(PANDALM_PREFIX)):
        vote = _vote(row[name])
        if vote is None:
            yield BadRowError(f"{name} is not 0, 1 or 2")
        elif vote == _TIE:
            yield LeftOutError("tied vote")
        else:
            yield compared(
                question, row.get(_SIDES[vote]), row.get(_SIDES[3 - vote]), annotator=name
            )


def _vote(value: Any) -> int | None:
    text = str(value).strip().removesuffix(".0")
    return int(text) if text in ("0", "1", "2") else None


def _turns(history: Any) -> Iterator[dict[str, str]]:
    for pair in history:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise BadRowError("history is not a list of question and answer pairs")
        yield {"role": "user", "content": text_of(pair[0], "history")}
        yield {"role": "assistant", "content": text_of(pair[1], "history")}
