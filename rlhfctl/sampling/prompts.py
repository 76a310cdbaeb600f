"""Token ids of the user's prompts, in the form that the run was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rlhfctl.data.sources import preview
from rlhfctl.errors import RlhfctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.stages.shared.stage_context import StageContext

PromptForm = Literal["auto", "chat", "text"]


def resolved_form(form: PromptForm, context: StageContext) -> Literal["chat", "text"]:
    """Return the form of prompts: by request, as in the run's prompts, else by the tokenizer.

    Args:
        form: The user's choice.
        context: Recipe and tokenizer of the run.

    Raises:
        UsageError: Chat is asked for and there is no chat template.
    """
    has_template = context.tokenizer.chat_template is not None
    if form == "chat" and not has_template:
        raise UsageError(
            "the tokenizer has no chat template",
            context.recipe.model.name_or_path,
            "use --form text, or a run with model.chat_template",
        )
    if form != "auto":
        return form
    try:
        seen = preview(context.recipe.data.prompts.parts[0], "prompts", rows=20)
    except RlhfctlError:
        seen = None  # the data is no longer there; the tokenizer decides
    if seen is not None and seen.messages is not None:
        return "chat" if seen.messages and has_template else "text"
    return "chat" if has_template else "text"


def encoded(
    prompts: Sequence[str],
    form: Literal["chat", "text"],
    context: StageContext,
    system: str | None = None,
) -> list[list[int]]:
    """Return the token ids of prompts.

    Args:
        prompts: Texts of one user.
        form: Through the chat template, or as they are.
        context: Formatting of the run.
        system: System turn before each; chat only.

    Raises:
        RenderingError: The chat template refuses a prompt.
    """
    if form == "text":
        return context.formatter.prompts_ids(list(prompts))
    before = [{"role": "system", "content": system}] if system else []
    return context.formatter.prompts_ids(
        [[*before, {"role": "user", "content": prompt}] for prompt in prompts]
    )
