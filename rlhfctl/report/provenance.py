"""Provenance of a run's results: versions, inputs, outputs and all metrics."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from rlhfctl.report.numbers import duration, number
from rlhfctl.stage_table import EVALUATION, STAGES, stage_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rlhfctl.report.sources import RunFacts
    from rlhfctl.run.manifest import StageRecord
    from rlhfctl.stage_table import Stage


def summary(records: Sequence[StageRecord]) -> list[tuple[str, str]]:
    """Return what was run, from what, when: a line below the title."""
    if not records:
        return []
    first = min(records, key=lambda record: record.started)
    model = first.recipe_part.get("model")
    base = model.get("name_or_path") if isinstance(model, dict) else None
    seeds = sorted({record.seed for record in records})
    facts = [
        ("base model", str(base) if base else ""),
        ("seed", ", ".join(map(str, seeds))),
        ("started", first.started[:16].replace("T", " ") + " UTC"),
        ("time in finished stages", duration(sum(record.seconds for record in records))),
    ]
    return [(label, value) for label, value in facts if value]


def versions(records: Iterable[StageRecord]) -> list[tuple[str, str]]:
    """Return each package's version; where stages differ, each with its stages."""
    found: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for package, version in record.versions.items():
            found[package][version].append(record.stage)
    return [(package, _joined(stages)) for package, stages in found.items()]


def artifacts(records: Iterable[StageRecord]) -> list[tuple[str, str, str, str]]:
    """Return (stage, direction, path, SHA-256) of every input and output."""
    return [
        (stage_named(record.stage).title, direction, artifact.path, artifact.sha256)
        for record in records
        for direction, side in (("input", record.inputs), ("output", record.outputs))
        for artifact in side.values()
    ]


def all_metrics(facts: RunFacts) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return every figure of every finished stage under its dotted name."""
    return [
        (stage.title, list(_flattened(_metrics(facts, stage))))
        for stage in STAGES
        if stage.name in facts.records
    ]


def _metrics(facts: RunFacts, stage: Stage) -> Mapping[str, Any]:
    return {**facts.stage_metrics(stage), **(facts.evaluation if stage is EVALUATION else {})}


def _joined(found: Mapping[str, Sequence[str]]) -> str:
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{version} ({', '.join(stages)})" for version, stages in found.items())


def _flattened(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every figure under its dotted name; lists are shown where they belong, not here."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            yield f"{prefix}{name}", value if isinstance(value, str) else number(value)
