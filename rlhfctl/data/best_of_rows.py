"""Prompts with right and wrong responses, in RewardBench 2's format."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlhfctl.data.rows import BadRowError, comparison, is_conversation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlhfctl.data.rows import Value

TIES = "ties"
"""Name of the subset with a rule of its own, in lower case."""
_TIES_ID = re.compile(r"(ref|tied):(\d+)")


@dataclass(frozen=True)
class BestOfRow:
    """A prompt with the responses that are compared.

    Attributes:
        subset: Name of the subset.
        prompt: Text or messages.
        right: Right responses; one, but for the subset of ties.
        wrong: Wrong responses.
        tie: Kind (`ref` or `tied`) and number, in the subset of ties; else None.
    """

    subset: str
    prompt: Value
    right: Sequence[Value]
    wrong: Sequence[Value]
    tie: tuple[str, int] | None = field(default=None)


def best_of_row(row: Mapping[str, Any], *, messages: bool) -> BestOfRow:
    """Return a row whose `chosen` and `rejected` are lists of texts.

    Args:
        row: Columns `subset`, `prompt`, `chosen`, `rejected`, and `id` in the subset of ties.
        messages: True if the reward model reads conversations.

    Raises:
        BadRowError: A column is missing or of another form.
    """
    subset = row.get("subset")
    if not isinstance(subset, str) or not subset.strip():
        raise BadRowError("subset is missing")
    right, wrong = (_texts(row.get(name), name) for name in ("chosen", "rejected"))
    # By the rules for any comparison: the prompt's form, and no response both right and wrong.
    pairs = [
        comparison({"prompt": row.get("prompt"), "chosen": chosen, "rejected": rejected})
        for chosen in right
        for rejected in wrong
    ]
    prompt = pairs[0]["prompt"]
    if is_conversation(prompt) and not messages:
        raise BadRowError("messages, where the reward model reads text")
    tie = None
    if subset.strip().lower() == TIES:
        match = _TIES_ID.fullmatch(str(row.get("id")))
        if match is None:
            raise BadRowError("id of the subset Ties is not ref:NUMBER or tied:NUMBER")
        tie = (match[1], int(match[2]))

    def response(text: str) -> Value:
        return [{"role": "assistant", "content": text}] if messages else text

    if messages and not is_conversation(prompt):
        prompt = [{"role": "user", "content": prompt}]
    return BestOfRow(
        subset.strip(),
        prompt,
        [response(text) for text in right],
        [response(t) for t in wrong],
        tie,
    )


def _texts(value: Any, name: str) -> list[str]:
    texts = list(value) if isinstance(value, list | tuple) else []
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise BadRowError(f"{name} is no list of texts")
    return texts
