"""The account of a migration as plain lines: which key became what, and which were left out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rlhfctl.stage_table import PPO, REWARD_MODEL, SFT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rlhfctl.migration.migrate import Migration
    from rlhfctl.migration.outcomes import KeyOutcome


def summary(migration: Migration) -> Iterator[str]:
    """Yield the lines for a terminal: counts per file, and all that needs attention."""
    for source in migration.sources:
        counts = {
            "mapped": len(list(source.of_kind("mapped"))),
            "left out": len(list(source.of_kind("left_out", "unsupported"))),
            "without a value": len(list(source.of_kind("empty"))),
            "unknown": len(list(source.of_kind("unknown"))),
        }
        parts = [f"{count} {name}" for name, count in counts.items() if count]
        yield f"{source.name} ({source.stage.title}): {', '.join(parts)}"
    yield from attention(migration)
    yield from _left_out(migration)


def attention(migration: Migration) -> Iterator[str]:
    """Yield what changes the training: keys without a counterpart, conflicts, missing data."""
    changes = [one for source in migration.sources for one in source.of_kind("unsupported")]
    if changes:
        yield "Without a counterpart, so the training differs:"
        yield from (f"  {_pair(one)}: {one.reason}" for one in _distinct(changes))
    remarks = [
        one
        for source in migration.sources
        for one in source.of_kind("default", "mapped")
        if one.reason
    ]
    if remarks:
        yield "Read with care:"
        yield from (f"  {_pair(one)}: {one.reason}" for one in _distinct(remarks))
    unknown = [one for source in migration.sources for one in source.of_kind("unknown")]
    if unknown:
        yield "Unknown keys:"
        yield from (
            f"  {one.key}{f' ({one.reason})' if one.reason else ''}" for one in _distinct(unknown)
        )
    if migration.conflicts:
        yield "Conflicts:"
        yield from (f"  {sentence}" for sentence in migration.conflicts)
    stages = {source.stage for source in migration.sources}
    others = [stage.title for stage in (SFT, REWARD_MODEL, PPO) if stage not in stages]
    if others:
        yield f"Stages that no file configures, with rlhfctl's defaults: {', '.join(others)}"
    if migration.missing:
        yield "Data that no file names:"
        for kind in migration.missing:
            yield f"  data.{kind}: embedded rows stand in; name your own before training on them"


def whole_account(migration: Migration) -> Iterator[str]:
    """Yield the lines for the recipe's head: every key of every file once."""
    for source in migration.sources:
        yield f"{source.name}, of {migration.tool} ({source.stage.title}):"
        for one in source.of_kind("mapped"):
            yield f"  {_pair(one)} -> {', '.join(one.targets)}"
        defaults = [one for one in source.of_kind("default") if one.targets]
        if defaults:
            yield f"{migration.tool}'s defaults, of keys that {source.name} does not have:"
        for one in defaults:
            yield f"  {_pair(one)} -> {', '.join(one.targets)}"
    yield from attention(migration)
    yield from _left_out(migration)
    empty = [one.key for source in migration.sources for one in source.of_kind("empty")]
    if empty:
        yield "Keys without a value:"
        yield f"  {', '.join(dict.fromkeys(empty))}"


def _left_out(migration: Migration) -> Iterator[str]:
    """Yield the keys that change nothing that is trained, by reason."""
    keys: dict[str, list[str]] = {}
    for source in migration.sources:
        for one in source.of_kind("left_out"):
            keys.setdefault(one.reason, []).append(one.key)
    if keys:
        yield "Left out, without an effect on what is trained:"
    for reason, names in keys.items():
        yield f"  {', '.join(dict.fromkeys(names))}: {reason}"


def _distinct(outcomes: Iterable[KeyOutcome]) -> Iterator[KeyOutcome]:
    """Yield outcomes, those alike in several files once."""
    seen = set()
    for outcome in outcomes:
        identity = (outcome.key, str(outcome.value), outcome.reason)
        if identity not in seen:
            seen.add(identity)
            yield outcome


def _pair(outcome: KeyOutcome) -> str:
    text = json.dumps(outcome.value, ensure_ascii=False, default=str)
    if isinstance(outcome.value, str):
        text = outcome.value
    return f"{outcome.key}: {text if len(text) <= 60 else f'{text[:57]}...'}"
