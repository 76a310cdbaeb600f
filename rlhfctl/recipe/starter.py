"""Text of a new recipe: the keys to start with, each with its value and a comment."""

from __future__ import annotations

import json
import re
import textwrap
from typing import TYPE_CHECKING, Any

from rlhfctl.recipe.base import Section
from rlhfctl.recipe.json_schema import EDITOR_LINE
from rlhfctl.recipe.keys import section_in, section_of
from rlhfctl.recipe.mixture_lists import SOURCES
from rlhfctl.recipe.schema import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rlhfctl.recipe.strict_yaml import KeyPath

_WIDTH = 100

STARTING_KEYS = frozenset(
    {
        *("name", "seed", "model.name_or_path", "model.quantization", "lora.r", "lora.alpha"),
        *("data.demonstrations.source", "data.comparisons.source", "data.prompts.source"),
        *("generation.max_prompt_length", "generation.max_new_tokens"),
        *("sft.learning_rate", "sft.num_train_epochs", "sft.max_length"),
        *("sft.per_device_train_batch_size", "sft.gradient_accumulation_steps"),
        *("reward_model.learning_rate", "reward_model.num_train_epochs", "reward_model.max_length"),
        "reward_model.per_device_train_batch_size",
        "reward_model.gradient_accumulation_steps",
        "reward_model.judge_share",
        *("ppo.episodes", "ppo.rollout_batch_size", "ppo.minibatch_size", "ppo.forward_batch_size"),
        *("ppo.learning_rate", "ppo.value_learning_rate", "ppo.beta"),
        *("evaluation.num_prompts", "evaluation.gates"),
    }
)
"""Keys that a new recipe has even with their default value: those that most runs change."""


def starter_text(
    recipe: Recipe,
    origin: str,
    file: str,
    notes: Sequence[str] = (),
) -> str:
    """Return a recipe as YAML with a comment for each key; it is read back equal.

    Keys with their default value are left out, except `STARTING_KEYS`.

    Args:
        recipe: The recipe.
        origin: Where its values are from, as the end of "Written by rlhfctl".
        file: Its file, for the commands in its first lines.
        notes: Further lines of its head.
    """
    comments = _Comments()
    lines = [
        EDITOR_LINE,
        f"# Written by rlhfctl {origin}. Next:",
        "#",
        f"#   rlhfctl validate {file}",
        f"#   rlhfctl run {file}",
        "#",
        f"# Every key that is not here has its default, which `rlhfctl show {file}` prints.",
        *(["#"] if notes else []),
        *_head(notes),
        "",
        *_section(recipe.model_dump(mode="json"), Recipe().model_dump(mode="json"), comments),
    ]
    return "\n".join(lines) + "\n"


def _head(notes: Sequence[str]) -> Iterator[str]:
    """Yield notes as comment lines, the further lines of a long one indented."""
    for note in notes:
        indent = " " * (len(note) - len(note.lstrip()))
        yield from textwrap.wrap(
            _printable(note.strip()),
            width=_WIDTH,
            initial_indent=f"# {indent}",
            subsequent_indent=f"#   {indent}",
            break_long_words=False,
            break_on_hyphens=False,
        )


def _printable(text: str) -> str:
    """Return a text without characters that would end a comment or that YAML refuses."""
    return "".join(
        character if character.isprintable() else f"\\u{ord(character):04x}" for character in text
    )


class _Comments:
    """Comments made of descriptions; one of several lines is written the first time only."""

    def __init__(self) -> None:
        self._written: set[str] = set()

    def lines(self, description: str | None, indent: str) -> list[str]:
        """Return a description as comment lines."""
        lines = textwrap.wrap(
            description or "",
            width=_WIDTH,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        if len(lines) > 1 and str(description) in self._written:
            return []
        self._written.add(str(description))
        return lines


def _section(
    values: dict[str, Any],
    defaults: dict[str, Any],
    comments: _Comments,
    kind: type[Section] = Recipe,
    above: KeyPath = (),
) -> Iterator[str]:
    """Yield the lines of a section's keys, with those of the sections in it."""
    indent = "  " * len(above)
    for key, information in kind.model_fields.items():
        path, value, default = (*above, key), values[key], defaults.get(key)
        if key == "source" and values.get(SOURCES):
            continue
        inner = section_of(information.annotation)
        if inner is not None and isinstance(value, dict):
            below = default if isinstance(default, dict) else _defaults(inner)
            lines = list(_section(value, below, comments, inner, path))
            if lines:
                yield from [] if above else [""]
                yield from comments.lines(information.description, indent)
                yield f"{indent}{key}:"
                yield from lines
            elif default is None:
                yield f"{indent}{key}: {{}}"
        elif value != default or ".".join(path) in STARTING_KEYS:
            yield from comments.lines(information.description, indent)
            # JSON is YAML, and its quotes keep strings such as `no` from turning into booleans.
            item = section_in(information.annotation)
            if item is not None and value:
                yield f"{indent}{key}:"
                yield from (f"{indent}  - {_yaml(_changed(one, item))}" for one in value)
            else:
                yield f"{indent}{key}: {_yaml(value)}"


def _changed(item: dict[str, Any], kind: type[Section]) -> dict[str, Any]:
    """Return the values of a list's section without those that are defaults."""
    defaults = _defaults(kind)
    return {key: value for key, value in item.items() if defaults.get(key, item) != value}


def _defaults(kind: type[Section]) -> dict[str, Any]:
    """Return the defaults of a section that is itself left out by default."""
    defaults = {
        key: information.get_default(call_default_factory=True)
        for key, information in kind.model_fields.items()
        if not information.is_required()
    }
    return {
        key: value.model_dump(mode="json") if isinstance(value, Section) else value
        for key, value in defaults.items()
    }


def _yaml(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


_PLAIN = re.compile(r"[A-Za-z_][\w.-]*(/[\w.-]+)*")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"}
"""Words that YAML, or a reader of YAML 1.1, takes for another type than text."""
