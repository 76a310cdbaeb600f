"""Differences between a stage's record and its current recipe, inputs and outputs."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING, Any

from rlhfctl.run.files import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rlhfctl.run.directory import RunDirectory
    from rlhfctl.run.manifest import Artifact, StageRecord

_ABSENT = object()
_LONGEST_SHOWN = 80  # characters


def staleness(
    record: StageRecord,
    recipe_part: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    directory: RunDirectory,
) -> list[str]:
    """Return the reasons why a recorded stage has to run again; empty when it is up to date.

    Args:
        record: The finished stage.
        recipe_part: Current values of the recipe keys that it reads.
        inputs: Current inputs.
        directory: Run folder.
    """
    reasons = recipe_changes(record.recipe_part, recipe_part)
    for name in sorted({*record.inputs, *inputs}):
        before, now = record.inputs.get(name), inputs.get(name)
        if before is None:
            reasons.append(f"{name} is a new input")
        elif now is None:
            reasons.append(f"{name} is no longer an input")
        elif before.sha256 != now.sha256:
            reasons.append(f"input {name} ({now.path}) changed")
    return reasons + output_changes(record, directory)


def recipe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe each changed recipe key with both values; a null section as one key."""
    return list(_differences(before, now, ""))


def output_changes(record: StageRecord, directory: RunDirectory) -> list[str]:
    """Describe each output that is missing or no longer has the recorded digest."""
    reasons = []
    for artifact in record.outputs.values():
        path = directory.root / artifact.path
        if not path.exists():
            reasons.append(f"output {artifact.path} is missing")
        elif digest(path) != artifact.sha256:
            reasons.append(f"output {artifact.path} was modified")
    return reasons


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key in sorted({*before, *now}):
        old, new = before.get(key, _ABSENT), now.get(key, _ABSENT)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key} changed from {_shown(old)} to {_shown(new)}"


def _shown(value: object) -> str:
    if value is _ABSENT:
        return "no key"
    if isinstance(value, dict):
        return "a section" if value else "empty"
    # The beginning of a long text, such as a judge's template, identifies it.
    return "null" if value is None else shorten(str(value), _LONGEST_SHOWN, placeholder="...")
