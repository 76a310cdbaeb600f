"""The tables of another tool's keys: one YAML file per tool, which says what becomes of each key."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.recipe import strict_yaml
from rlhfctl.stage_table import ALL_STAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlhfctl.stage_table import Stage

TOOLS = ("llamafactory", "axolotl")
BY_TOOL = "tool"
"""Conversion of a key that the tool's own module reads, with others."""


@dataclass(frozen=True)
class Rule:
    """Fate of one mapped key.

    Attributes:
        targets: Recipe keys that it sets; ``{stage}`` is the section of the file's stage, and
            ``{data}`` that of its data.
        convert: Name of the conversion of its value; empty for none.
        by_stage: Stage name -> targets that replace these; empty ones leave the key out.
        reason: Reason for which a stage leaves it out.
        remark: A difference that people should know of.
    """

    targets: tuple[str, ...]
    convert: str = ""
    by_stage: Mapping[str, tuple[str, ...]] | None = None
    reason: str = ""
    remark: str = ""

    def targets_in(self, stage: Stage) -> tuple[str, ...]:
        """Return the recipe keys that it sets in a file of one stage."""
        chosen = (self.by_stage or {}).get(stage.name, self.targets)
        # The recipe's section of a stage has the name of its module.
        return tuple(
            target.replace("{stage}", stage.module).replace("{data}", f"data.{stage.data[0]}")
            for target in chosen
        )


@dataclass(frozen=True)
class KeyTable:
    """All keys of one tool.

    Attributes:
        title: Name of the tool.
        marks: Keys by which a file of the tool is recognised.
        mapped: Key -> rule.
        left_out: Key -> reason, for keys that change nothing that is trained.
        unsupported: Key -> reason, for keys that do.
        off: Key -> values with which an unsupported key does nothing.
        refused: Key -> value as text -> reason not to migrate such a file, None for values that
            are fine; ``*`` is any other value.
        defaults: Stage name or ``all`` -> key -> the tool's value where a file has none.
        replaced: Key -> another key; where a file has the other, this one does not count.
        extra: Further tables of the tool, as read.
    """

    title: str
    marks: tuple[str, ...]
    mapped: Mapping[str, Rule]
    left_out: Mapping[str, str]
    unsupported: Mapping[str, str]
    off: Mapping[str, list[object]]
    refused: Mapping[str, Mapping[str, str | None]]
    defaults: Mapping[str, Mapping[str, object]]
    replaced: Mapping[str, str]
    extra: Mapping[str, Any]

    @property
    def keys(self) -> set[str]:
        """All keys that the table has a word on."""
        return {*self.mapped, *self.left_out, *self.unsupported, *self.refused}

    def default_values(self, stage: str) -> dict[str, object]:
        """Return the tool's values for a file of one stage, for keys that it may lack."""
        return {**self.defaults.get("all", {}), **self.defaults.get(stage, {})}


@cache
def key_table(tool: str) -> KeyTable:
    """Return the table of a tool of `TOOLS`."""
    document = strict_yaml.read(Path(__file__).with_name(f"{tool}.yaml")).value
    used = {"title", "marks", "mapped", "left_out", "unsupported", "off", "refused", "defaults"}
    return KeyTable(
        title=document["title"],
        marks=tuple(document["marks"]),
        mapped={key: _rule(rule) for key, rule in document["mapped"].items()},
        left_out=by_key(document["left_out"]),
        unsupported=by_key(document["unsupported"]),
        off=document["off"],
        refused=document["refused"],
        defaults=document["defaults"],
        replaced=document["replaced"],
        extra={key: value for key, value in document.items() if key not in used},
    )


def by_key(reasons: Mapping[str, list[str]]) -> dict[str, str]:
    """Return key -> reason of a table of reason -> keys."""
    return {key: reason for reason, keys in reasons.items() for key in keys}


def _rule(rule: Any) -> Rule:
    if isinstance(rule, str):
        return Rule((rule,))
    names = [stage.name for stage in ALL_STAGES]
    stages = {key: _targets(rule[key]) for key in names if key in rule}
    return Rule(
        _targets(rule["to"]),
        rule.get("by", ""),
        stages,
        rule.get("reason", ""),
        rule.get("remark", ""),
    )


def _targets(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)
