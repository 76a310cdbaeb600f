"""Differences between a stage's record and its current recipe, inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import shorten
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rlhfctl.run.files import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rlhfctl.run.directory import RunDirectory
    from rlhfctl.run.manifest import Artifact, StageRecord

_ABSENT = object()
_NONE: Mapping[str, Any] = MappingProxyType({})
_LONGEST_SHOWN = 80  # characters


@dataclass(frozen=True)
class Change:
    """A difference between two states of a stage.

    Attributes:
        key: Recipe key, or name of an input.
        text: Description with both values.
    """

    key: str
    text: str


def staleness(
    record: StageRecord,
    recipe_part: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    directory: RunDirectory,
    defaults: Mapping[str, Any] = _NONE,
) -> list[str]:
    """Return the reasons why a recorded stage has to run again; empty when it is up to date.

    Args:
        record: The finished stage.
        recipe_part: Current values of the recipe keys that it reads.
        inputs: Current inputs.
        directory: Run folder.
        defaults: Defaults of those keys; see `changed_keys`.
    """
    changes = changed_keys(record.recipe_part, recipe_part, defaults)
    changes += changed_inputs(record.inputs, inputs)
    return [change.text for change in changes] + output_changes(record, directory)


def recipe_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any] = _NONE
) -> list[str]:
    """Describe each changed recipe key with both values; a null section as one key."""
    return [change.text for change in changed_keys(before, now, defaults)]


def changed_keys(
    before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any] = _NONE
) -> list[Change]:
    """Return each changed recipe key; a null section as one key.

    Args:
        before: Recorded values.
        now: Present values.
        defaults: Defaults of the keys. A key that the record lacks, since an earlier version had none
            of that name, had its default.
    """
    return list(_differences(before, now, defaults, ""))


def changed_inputs(before: Mapping[str, Artifact], now: Mapping[str, Artifact]) -> list[Change]:
    """Return each input that is new, gone, or has another digest."""
    changes = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old is None:
            changes.append(Change(name, f"{name} is a new input"))
        elif new is None:
            changes.append(Change(name, f"{name} is no longer an input"))
        elif old.sha256 != new.sha256:
            changes.append(Change(name, f"input {name} ({new.path}) changed"))
    return changes


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


def log_change(record: StageRecord, directory: RunDirectory) -> str | None:
    """Describe a training log that no longer has the recorded digest; None if it has.

    A log is no output: a stage whose log was removed or edited is still up to date.
    """
    if record.log is None:
        return None
    path = directory.root / record.log.path
    if not path.exists():
        return f"log {record.log.path} is missing"
    return f"log {record.log.path} was modified" if digest(path) != record.log.sha256 else None


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str
) -> Iterator[Change]:
    for key in sorted({*before, *now}):
        default = defaults.get(key, _ABSENT)
        old, new = before.get(key, default), now.get(key, _ABSENT)
        if isinstance(old, dict) and isinstance(new, dict):
            within = default if isinstance(default, dict) else _NONE
            yield from _differences(old, new, within, f"{prefix}{key}.")
        elif old != new:
            name = f"{prefix}{key}"
            yield Change(name, f"{name} changed from {_shown(old)} to {_shown(new)}")


def _shown(value: object) -> str:
    if value is _ABSENT:
        return "no key"
    if isinstance(value, dict):
        return "a section" if value else "empty"
    # The beginning of a long text, such as a judge's template, identifies it.
    return "null" if value is None else shorten(str(value), _LONGEST_SHOWN, placeholder="...")
