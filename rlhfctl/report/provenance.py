"""Provenance of a run's results: versions, inputs, outputs and all metrics."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rlhfctl.report.numbers import duration, number
from rlhfctl.results.io import to_json
from rlhfctl.stage_table import DPO, EVALUATION, PPO, REWARD_MODEL, SFT, stage_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rlhfctl.report.sources import RunFacts
    from rlhfctl.run.manifest import StageRecord


def summary(records: Sequence[StageRecord]) -> list[tuple[str, str]]:
    """Return base model, seed, start and duration, for the line below the title."""
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
    """Return the version per package; if stages differ, each version with its stages."""
    packages: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for package, version in record.versions.items():
            packages[package][version].append(record.stage)
    return [(package, _joined(stages)) for package, stages in packages.items()]


def artifacts(records: Iterable[StageRecord]) -> list[tuple[str, str, str, str]]:
    """Return (stage, direction, path, SHA-256) of every input and output."""
    return [
        (stage_named(record.stage).title, direction, artifact.path, artifact.sha256)
        for record in records
        for direction, side in (("input", record.inputs), ("output", record.outputs))
        for artifact in side.values()
    ]


def repositories(records: Iterable[StageRecord]) -> list[tuple[str, str, str, str]]:
    """Return (stage, recipe key, id, commit) of every repository of the Hub that was read."""
    return [
        (stage_named(record.stage).title, key, name, commit)
        for record in records
        for key, repository in record.repositories.items()
        for name, _, commit in (repository.rpartition("@"),)
    ]


def all_metrics(facts: RunFacts) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return all metrics of every finished stage by dotted name."""
    return [
        (stage.title, [] if result is None else list(_flattened(to_json(result))))
        for stage, result in (
            (SFT, facts.sft),
            (REWARD_MODEL, facts.reward_model),
            (PPO, facts.ppo),
            (DPO, facts.dpo),
            (EVALUATION, facts.evaluation),
        )
        if stage.name in facts.records
    ]


def _joined(stages_per_version: Mapping[str, Sequence[str]]) -> str:
    if len(stages_per_version) == 1:
        return next(iter(stages_per_version))
    return "; ".join(
        f"{version} ({', '.join(stages)})" for version, stages in stages_per_version.items()
    )


def _flattened(metrics: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every metric by dotted name; lists are left to their sections."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            yield f"{prefix}{name}", value if isinstance(value, str) else number(value)
