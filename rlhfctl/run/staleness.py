"""Whether a finished stage still stands: what has changed since it was recorded."""

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


def changes(
    record: StageRecord,
    recipe_part: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    directory: RunDirectory,
) -> list[str]:
    """Say why a recorded stage no longer stands, a phrase a reason; empty when it does.

    Args:
        record: The stage as it was recorded.
        recipe_part: What of today's recipe its result depends on.
        inputs: What it would be made from today.
        directory: The run's.
    """
    reasons = recipe_changes(record.recipe_part, recipe_part)
    for name in sorted({*record.inputs, *inputs}):
        before, now = record.inputs.get(name), inputs.get(name)
        if before is None:
            reasons.append(f"{name} is a new input")
        elif now is None:
            reasons.append(f"{name} is no longer an input")
        elif before.sha256 != now.sha256:
            reasons.append(f"its input {name} ({now.path}) has changed")
    return reasons + output_changes(record, directory)


def recipe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name each recipe key whose value differs, with both values; a whole section by its name."""
    return list(_differences(before, now, ""))


def output_changes(record: StageRecord, directory: RunDirectory) -> list[str]:
    """Name each output that is gone or is not what the stage wrote."""
    reasons = []
    for artifact in record.outputs.values():
        path = directory.root / artifact.path
        if not path.exists():
            reasons.append(f"its output {artifact.path} is gone")
        elif digest(path) != artifact.sha256:
            reasons.append(f"its output {artifact.path} is not what it wrote")
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
        return "absent"
    if isinstance(value, dict):
        return "given" if value else "empty"
    # Of a long text, such as a judge's question, the beginning tells which it was.
    return "null" if value is None else shorten(str(value), _LONGEST_SHOWN, placeholder="...")
