"""Tokenizer, chat template, stop tokens and generation defaults of an export."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from rlhfctl.data.rendering import ChatTemplate, RenderingError
from rlhfctl.errors import RecipeError
from rlhfctl.recipe.template_date import without_date

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rlhfctl.stages.shared.stage_context import StageContext

TEMPLATE_FILE = "chat_template.jinja"
_PROBES = (
    [{"role": "user", "content": "Hello"}],
    [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Good day."},
        {"role": "user", "content": "Why?"},
    ],
)
_GENERATION = re.compile(r"\{%(?P<open>[-+]?)\s*(?P<end>end)?generation\s*(?P<close>[-+]?)%\}")


def write_serving_files(context: StageContext, folder: Path, *, generates: bool) -> None:
    """Write the tokenizer with its chat template, and the run's generation defaults.

    Args:
        context: Tokenizer, chat template and stop tokens of the run.
        folder: The export.
        generates: Whether the model generates, so that it needs generation defaults.

    Raises:
        RecipeError: The template's variables cannot be written into it.
    """
    variables = without_date(context.recipe.model.chat_template_kwargs)
    own = context.tokenizer.chat_template
    if own is not None and variables:
        context.tokenizer.chat_template = with_variables(context.tokenizer, variables)
    try:
        context.save_tokenizer(folder)
    finally:
        context.tokenizer.chat_template = own
    if generates:
        generation_defaults(context).save_pretrained(str(folder))


def generation_defaults(context: StageContext) -> Any:
    """Return the GenerationConfig of the plain softmax that PPO sampled from, with all stops."""
    from transformers import GenerationConfig

    settings = context.recipe.generation
    return GenerationConfig(
        do_sample=True,
        temperature=settings.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=list(context.stop_token_ids),
        pad_token_id=context.padding.exported_id,
        bos_token_id=context.tokenizer.bos_token_id,
    )


def with_variables(tokenizer: Any, variables: Mapping[str, Any]) -> str:
    """Return a chat template that needs none of the recipe's `model.chat_template_kwargs`.

    Servers render it without them, and would thus ask in another way than in training.

    Args:
        tokenizer: Tokenizer with the template.
        variables: Values of its variables.

    Raises:
        RecipeError: The result renders conversations differently.
    """
    own = str(tokenizer.chat_template)
    lines = "".join(
        f"{{%- set {name} = {_literal(value)} -%}}" for name, value in variables.items()
    )
    before = ChatTemplate(tokenizer, variables)
    expected = [before.render(probe, ask=True) for probe in _PROBES]
    tokenizer.chat_template = lines + own
    try:
        after = ChatTemplate(tokenizer)
        same = [after.render(probe, ask=True) for probe in _PROBES] == expected
    except RenderingError:
        same = False
    finally:
        tokenizer.chat_template = own
    if not same:
        raise RecipeError(
            f"the variables {', '.join(variables)} cannot be written into the chat template",
            "model.chat_template_kwargs",
            "Put their values into a template of your own, and name it in model.chat_template.",
        )
    return lines + own


def without_generation_marks(template: str) -> str:
    """Return a template without `{% generation %}`, which only transformers' renderer has.

    The marks become conditions that always hold, so white space is trimmed as before.
    """

    def condition(match: re.Match[str]) -> str:
        word = "endif" if match["end"] else "if true"
        return f"{{%{match['open']} {word} {match['close']}%}}"

    return _GENERATION.sub(condition, template)


def _literal(value: Any) -> str:
    """Return a JSON value as a literal of Jinja."""
    names = {True: "true", False: "false", None: "none"}
    if value is None or isinstance(value, bool):
        return names[value]
    return json.dumps(value, ensure_ascii=False)
