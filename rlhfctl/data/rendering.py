"""Rendering of conversations by a chat template, and the fields that it leaves out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateError

from rlhfctl.data.reasoning import REASONING
from rlhfctl.data.time_limit import TimeLimitError, time_limit
from rlhfctl.errors import DataError, RecipeError
from rlhfctl.recipe.template_date import with_date, without_date

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from rlhfctl.data.control_tokens import Turn

# What the code of a template raises about a row that it was not written for.
_REFUSALS = (
    *(TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError),
    RecursionError,
)
LONGEST_RENDERING = 10.0
"""Seconds for one conversation; templates take less than a millisecond."""


class RenderingError(DataError):
    """A row that cannot be rendered as it is; `cause` is what it is counted under."""

    cause: str = ""

    @classmethod
    def of(cls, cause: str, what: str, hint: str) -> RenderingError:
        """Return the error with its cause."""
        error = cls(what, "model.chat_template", hint)
        error.cause = cause
        return error


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer's chat template with the recipe's variables.

    Attributes:
        tokenizer: Tokenizer with the template, if any.
        variables: Further variables of the template, such as `enable_thinking`.
    """

    tokenizer: PreTrainedTokenizerBase
    variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the tokenizer in messages."""
        return str(self.tokenizer.name_or_path or "tokenizer")

    @property
    def source(self) -> str:
        """The template itself; empty if there is none."""
        return str(self.tokenizer.chat_template or "")

    def render(self, turns: Sequence[Turn], *, ask: bool) -> str:
        """Return the text of a conversation.

        Args:
            turns: Messages; the first may hold the conversation's `tools`.
            ask: Whether the beginning of an answer is added.

        Raises:
            RecipeError: There is no chat template.
            RenderingError: The template refuses the conversation.
            DataError: The template does not end.
        """
        if not self.source:
            raise RecipeError(
                f"the rows are conversations, but the tokenizer of {self.name} has no chat "
                "template",
                "model.chat_template",
                "name a Jinja file, or use a model that was tuned for conversations",
            )
        tools = turns[0].get("tools") if turns else None
        try:
            with time_limit(LONGEST_RENDERING):
                text = self.tokenizer.apply_chat_template(
                    [{name: turn[name] for name in turn if name != "tools"} for turn in turns],
                    tools=tools,
                    tokenize=False,
                    add_generation_prompt=ask,
                    chat_template=with_date(self.source, self.variables),
                    **without_date(self.variables),
                )
        except TimeLimitError as error:
            raise DataError(
                f"the chat template of {self.name} did not render a conversation within "
                f"{LONGEST_RENDERING:g} seconds",
                "model.chat_template",
                "it may loop for ever; name another template",
            ) from error
        except _REFUSALS as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
            raise RenderingError.of(
                f"refused by the chat template: {reason}",
                f"the chat template of {self.name} refuses a conversation: {reason}",
                "fix the rows (some templates accept no system turn), or name another template",
            ) from error
        return cast("str", text)

    def check_reasoning(self, turns: Sequence[Turn], text: str) -> None:
        """Refuse an answer with reasoning of its own that the template leaves out.

        Templates drop that of earlier turns on purpose.

        Args:
            turns: The whole conversation.
            text: Its rendering.

        Raises:
            RenderingError: The last turn's reasoning is not in the text.
        """
        last = len(turns) - 1
        if any(name in turns[last] for name in REASONING):
            without = [*turns[:last], _less(turns[last], *REASONING)]
            self._check_differs("reasoning_content", text, without, ask=False)

    def check_tools(self, turns: Sequence[Turn], text: str, *, ask: bool) -> None:
        """Refuse a conversation with tools or calls of tools that the template leaves out.

        Args:
            turns: The conversation.
            text: Its rendering.
            ask: Whether the rendering ends with the beginning of an answer.

        Raises:
            RenderingError: Tool calls or tools are not in the text.
        """
        if any("tool_calls" in turn for turn in turns):
            without = [_less(turn, "tool_calls") for turn in turns]
            self._check_differs("tool_calls", text, without, ask=ask)
        if turns and "tools" in turns[0]:
            without = [_less(turn, "tools") for turn in turns]
            self._check_differs("tools", text, without, ask=ask)

    def _check_differs(self, name: str, text: str, without: list[Turn], *, ask: bool) -> None:
        try:
            same = self.render(without, ask=ask) == text
        except RenderingError:
            return  # the template needs the field, so it reads it
        if same:
            raise RenderingError.of(
                f"with {name} that the chat template does not render",
                f"the chat template of {self.name} leaves out {name}",
                f"name a template that renders {name}, or leave the field out of the rows",
            )


def lost_text(turns: Sequence[Turn], text: str) -> list[str]:
    """Return a clause per kind of content that is not in the rendering.

    Args:
        turns: The whole conversation, ending with an answer.
        text: Its rendering.
    """
    clauses = []
    *earlier, answer = turns
    if not _holds(text, answer["content"]):
        thought, end, said = answer["content"].rpartition("</think>")
        thought = thought.strip().removeprefix("<think>")
        stripped = bool(end and thought) and _holds(text, said)
        what = "<think>...</think> of their answer" if stripped else "part of their answer"
        # White space around the tags may be the template's.
        if not (stripped and _holds(text, thought)):
            clauses.append(f"lose {what} to the chat template")
    lost = {
        turn["role"]
        for turn in earlier
        if turn["role"] != "assistant" and not _holds(text, turn["content"])
    }
    clauses += [f"lose text of a {role} turn to the chat template" for role in sorted(lost)]
    return clauses


def _holds(text: str, content: str) -> bool:
    return content.strip() in text or json.dumps(content, ensure_ascii=False)[1:-1] in text


def _less(turn: Turn, *names: str) -> Turn:
    return {name: value for name, value in turn.items() if name not in names}
