"""Answers behind a prompt that the chat template ends within or after a reasoning block.

Templates such as DeepSeek-R1's and QwQ's end a prompt with ``<think>``, and render an answer without
it and without its reasoning, since they are written for answers of the past. A row would then train
on another prompt than the one that is sampled from. Here the answer goes on where the prompt ends.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rlhfctl.data.control_tokens import Turn

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Fields of a message that hold its reasoning."""
# At the end of a prompt: an open block, or an empty one where reasoning is switched off.
_OPENING = re.compile(r"(?:<(?P<tag>think\w*|reason\w*|thought)>|\[THINK\])(?P<space>\s*)$")
_EMPTY = re.compile(r"(?:<(?P<tag>think\w*|reason\w*|thought)>\s*</(?P=tag)>)\s*$")


class Continued(NamedTuple):
    """A rendering that begins with the prompt.

    Attributes:
        whole: Prompt and answer.
        note: Clause about what was put in, if anything.
    """

    whole: str
    note: str = ""


def continued(start: str, whole: str, answer: Turn) -> Continued | None:
    """Return a rendering in which an answer follows the prompt's reasoning block.

    Its reasoning, in its content or in a field of its own, fills an open block. Without any, the
    block is closed at once, as templates that switch reasoning off do.

    Args:
        start: Rendering of the prompt with the beginning of an answer.
        whole: Rendering of prompt and answer.
        answer: The answer's message.

    Returns:
        None if the prompt ends otherwise, or the template changes more than the block.
    """
    opened = _OPENING.search(start)
    place = opened or _EMPTY.search(start)
    if place is None or not whole.startswith(start[: place.start()]):
        return None
    rest = whole[place.start() :]
    if opened is None:
        return None if "</" + place["tag"] in rest else Continued(start + rest.lstrip("\n"))
    tag = opened[0].rstrip()
    end = "[/THINK]" if opened["tag"] is None else f"</{opened['tag']}>"
    reasoning, said_end, said = str(answer["content"]).rpartition(end)
    if not said_end and end in rest:
        # The template has written the block, with other white space than in the prompt.
        return Continued(start + _inside(rest, tag, opened["space"]))
    if not said_end:
        field = next((str(answer[name]) for name in REASONING if answer.get(name)), "")
        block = f"{field.strip()}\n{end}\n\n"
        note = "" if field else f"have no reasoning; their answer follows an empty {tag} block"
        return Continued(start + block + rest.lstrip("\n"), note)
    if end in rest:  # a template that leaves the content as it is
        rest = rest[rest.rindex(end) + len(end) :]
    block = _inside(reasoning, tag, opened["space"])
    gap = said[: len(said) - len(said.lstrip())]
    return Continued(start + block + end + gap + rest.lstrip())


def _inside(text: str, tag: str, space: str) -> str:
    """Return a text without the tag that it may begin with, and the prompt's white space."""
    return text.lstrip().removeprefix(tag).removeprefix(space)
