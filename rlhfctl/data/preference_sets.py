"""Forms of preference sets, such as HH-RLHF, UltraFeedback, HelpSteer, PKU-SafeRLHF, WebGPT, RewardBench."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from rlhfctl.data.cells import choice_of, object_of
from rlhfctl.data.forms import TOOLS, WEIGHT, compared
from rlhfctl.data.instructions import plain_question
from rlhfctl.data.rows import BadRowError, LeftOutError, text_of
from rlhfctl.data.transcripts import TranscriptError, split_transcript

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.data.forms import Item, Kind, Source

TIED = "tied vote"
_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def hh_rlhf(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert Anthropic's HH-RLHF: two transcripts of ``Human:`` and ``Assistant:`` turns.

    Its demonstrations are the chosen transcripts, as in Bai et al. (2022).
    """
    del chat
    for name in ("chosen", "rejected"):
        try:
            divided = split_transcript(text_of(row.get(name), name))
        except TranscriptError as error:
            raise BadRowError(str(error)) from error
        if divided is None:
            raise BadRowError(f"{name} is no transcript of Human: and Assistant: turns")
    if kind == "demonstrations":
        yield {"text": row["chosen"]}
    else:
        yield {"chosen": row["chosen"], "rejected": row["rejected"]}


def ultrafeedback_binarized(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert HuggingFaceH4/ultrafeedback_binarized; ``margin`` is the difference of the scores."""
    del chat
    if kind != "comparisons":
        yield {"messages": row.get("chosen")}
        return
    yield {
        "chosen": row.get("chosen"),
        "rejected": row.get("rejected"),
        "margin": _difference(row.get("score_chosen"), row.get("score_rejected")),
    }


def helpsteer2(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert the preferences of nvidia/HelpSteer2; a positive strength prefers response 2.

    Later turns of ``prompt`` begin with a line ``<extra_id_1>Assistant`` or ``<extra_id_1>User``.
    """
    del chat
    texts = _TURN.split(text_of(row.get("prompt"), "prompt"))
    roles = ["user", *(role.lower() for role in texts[1::2])]
    question = [
        {"role": role, "content": text} for role, text in zip(roles, texts[::2], strict=True)
    ]
    names = ("response_1", "response_2")
    yield from _preferred(row, kind, question, names, "preference_strength")


def helpsteer3(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert the preferences of nvidia/HelpSteer3; a positive preference is for response 2."""
    del chat
    question = row.get("context")
    names = ("response1", "response2")
    yield from _preferred(row, kind, question, names, "overall_preference")


def _preferred(
    row: Source, kind: Kind, question: Any, names: tuple[str, str], column: str
) -> Iterator[Item]:
    """Yield the prompt, or the comparison of two responses with the strength as its margin."""
    if kind == "prompts":
        yield {"prompt": question}
        return
    strength = _number(row.get(column), column)
    if strength == 0.0:
        raise LeftOutError(TIED)
    responses = [row.get(name) for name in names]
    better = int(strength > 0.0)
    yield compared(question, responses[better], responses[1 - better], margin=abs(strength))


def pku_saferlhf(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert PKU-SafeRLHF; ``better_response_id``, 0 or 1, is the index of the preferred response."""
    question = plain_question(row.get("prompt"), "prompt", chat=chat)
    if kind == "prompts":
        yield {"prompt": question}
        return
    better = choice_of(row.get("better_response_id"), "better_response_id")
    responses = row.get("response_0"), row.get("response_1")
    yield compared(question, responses[better], responses[1 - better])


def webgpt(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert openai/webgpt_comparisons; ``margin`` is the difference of the scores."""
    text = object_of(row.get("question"), "question").get("full_text")
    question = plain_question(text, "question.full_text", chat=chat)
    if kind == "prompts":
        yield {"prompt": question}
        return
    scores = [_number(row.get(name), name) for name in ("score_0", "score_1")]
    if scores[0] == scores[1]:
        raise LeftOutError(TIED)
    answers = row.get("answer_0"), row.get("answer_1")
    better = int(scores[1] > scores[0])
    margin = abs(scores[1] - scores[0])
    yield compared(question, answers[better], answers[1 - better], margin=margin)


def openai_preference(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert a row of OpenAI's preference fine-tuning: ``input.messages`` and two outputs."""
    del chat
    request = object_of(row.get("input"), "input")
    tools = {TOOLS: request[TOOLS]} if request.get(TOOLS) else {}
    if kind == "prompts":
        yield {"prompt": request.get("messages"), **tools}
        return
    outputs = row.get("preferred_output"), row.get("non_preferred_output")
    yield compared(request.get("messages"), *outputs, **tools)


def reward_bench(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert RewardBench: one chosen and one rejected text, or in version 2 a list of each.

    Every chosen response is paired with every rejected one; the pairs of a row weigh 1 together.
    The subset is the ``source``.
    """
    question: Any = text_of(row.get("prompt"), "prompt")
    if chat:
        question = [{"role": "user", "content": question}]
    if kind == "prompts":
        yield {"prompt": question}
        return
    chosen, rejected = (_responses(row.get(name), name) for name in ("chosen", "rejected"))
    extras: dict[str, Any] = {"source": row.get("subset")}
    if isinstance(row.get("chosen"), (list, tuple)):
        extras[WEIGHT] = 1.0 / (len(chosen) * len(rejected))
    for good in chosen:
        for bad in rejected:
            yield compared(question, good, bad, **extras)


def _responses(value: Any, column: str) -> list[str]:
    # A text that looks like a list is a response of version 1.
    texts = list(value) if isinstance(value, (list, tuple)) else [value]
    if not texts:
        raise BadRowError(f"{column} is an empty list")
    return [text_of(text, column) for text in texts]


def _number(value: Any, column: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadRowError(f"{column} is not a number")
    return number


def _difference(one: Any, other: Any) -> float | None:
    """Return the difference of two scores; None if one is missing."""
    if one is None or other is None:
        return None
    return _number(one, "score_chosen") - _number(other, "score_rejected")
