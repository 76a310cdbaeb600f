"""Loss mask of an assistant's earlier turns, for `sft.assistant_turns: all`.

The meaning is that of TRL's `assistant_only_loss`: each answer with its end token. No
``{% generation %}`` is needed in the chat template: an answer begins where the rendering of the
turns before it, with the beginning of an answer, ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.data.control_tokens import Marked
from rlhfctl.data.message_fields import is_trained_on, whole_turns
from rlhfctl.data.rendering import RenderingError

if TYPE_CHECKING:
    from rlhfctl.data.control_tokens import Ids, Turn
    from rlhfctl.data.formatter import Formatter
    from rlhfctl.data.rows import Messages


def earlier_answers(formatter: Formatter, prompt: Messages, ids: Ids) -> list[int]:
    """Return a mask of a prompt's ids: 1 on earlier answers and their end tokens.

    Args:
        formatter: Formatter of the ids.
        prompt: Messages before the last answer.
        ids: Result of `Formatter.prompt_ids`.

    Raises:
        RenderingError: An answer cannot be found in the rendering.
    """
    turns, marks = formatter.marked(whole_turns(prompt))
    whole = formatter.text(turns, ask=True)
    (raw,) = formatter.tokenised([Marked(whole, marks)])

    def tokens(characters: int) -> int:
        """Return the number of ids that the first characters of the rendering have."""
        (part,) = formatter.tokenised([Marked(whole[:characters], marks)])
        pairs = enumerate(zip(part, raw, strict=False))
        return next((place for place, (a, b) in pairs if a != b), min(len(part), len(raw)))

    mask = [0] * len(raw)
    for place, turn in enumerate(turns):
        if turn["role"] != "assistant" or not is_trained_on(turn):
            continue
        first = tokens(_beginning(formatter, turns, place, whole))
        until = _text(formatter, turns[: place + 1], ask=False)
        bound = tokens(len(until)) if until and whole.startswith(until) else None
        stops = (
            n for n, token in enumerate(raw[:bound]) if n >= first and token in formatter.stops
        )
        last = next(stops, None)
        if last is None and bound is None:
            raise _not_found(formatter)
        end = bound if last is None else last + 1
        mask[first:end] = [1] * len(mask[first:end])
    # A second BOS may have been left out.
    return mask[len(raw) - len(ids) :]


def _beginning(formatter: Formatter, turns: list[Turn], place: int, whole: str) -> int:
    """Return the position in the rendering where an answer begins."""
    before = _text(formatter, turns[:place], ask=True)
    if before and whole.startswith(before):
        return len(before)
    # Some templates begin an answer to sample with more than a past answer, such as <think>.
    before = _text(formatter, turns[:place], ask=False)
    content = turns[place]["content"]
    # They leave out the reasoning of past answers, too.
    parts = [part.strip() for part in (content, content.rpartition("</think>")[2]) if part.strip()]
    positions = (whole.find(part, len(before)) for part in parts if whole.startswith(before))
    position = next((start for start in positions if start >= 0), -1)
    end = formatter.tokenizer.decode([formatter.end_id])
    if position < 0 or end in whole[len(before) : position]:
        raise _not_found(formatter)
    return position


def _text(formatter: Formatter, turns: list[Turn], *, ask: bool) -> str:
    """Return the rendering of a conversation's beginning; empty if the template refuses it."""
    try:
        return formatter.text(turns, ask=ask) if turns else ""
    except RenderingError:
        return ""


def _not_found(formatter: Formatter) -> RenderingError:
    return RenderingError.of(
        "whose earlier answers cannot be found in their rendering",
        f"the chat template of {formatter.template.name} changes earlier answers, so that they "
        "cannot be found for the loss",
        "set sft.assistant_turns: last, or name another template",
    )
