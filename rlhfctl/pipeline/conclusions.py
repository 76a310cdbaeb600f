"""The conclusion of a stage for trackers: final metrics, samples, verdict and report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.json_text import parse_json
from rlhfctl.results.io import from_json
from rlhfctl.results.samples import EvaluationSample, SampleScores, TrainingSample
from rlhfctl.run.directory import SAMPLES_FILE
from rlhfctl.run.trackers import Conclusion, SampleTable
from rlhfctl.stage_table import EVALUATION, PPO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from rlhfctl.run.directory import RunDirectory
    from rlhfctl.run.manifest import StageRecord

MOST_SAMPLES = 64


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written, and its verdict in words."""

    verdict: str
    page: Path


def conclusion_of(
    record: StageRecord,
    directory: RunDirectory,
    write_report: Callable[[], WrittenReport] | None,
) -> Conclusion:
    """Return what trackers log of a stage that is in the manifest.

    Args:
        record: Its record.
        directory: Run folder.
        write_report: Writes the run's report, after an evaluation; None writes none.

    Raises:
        CheckpointError: The samples are damaged.
    """
    report = write_report() if write_report and record.stage == EVALUATION.name else None
    return Conclusion(
        metrics=dict(flat_numbers(record.metrics)),
        samples=_samples(record.stage, directory),
        verdict=report.verdict if report else "",
        report=report.page if report else None,
    )


def flat_numbers(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of nested metrics by dotted name, without lists and booleans."""
    for name, item in value.items():
        if isinstance(item, dict):
            yield from flat_numbers(item, f"{prefix}{name}.")
        elif isinstance(item, int | float) and not isinstance(item, bool):
            yield f"{prefix}{name}", item


def flat_settings(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of a nested recipe part by dotted key; lists are values."""
    for name, item in value.items():
        if isinstance(item, dict) and item:
            yield from flat_settings(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


def _samples(stage: str, directory: RunDirectory) -> SampleTable | None:
    path = directory.stage(stage) / SAMPLES_FILE
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    if stage == PPO.name:
        rows = [from_json(TrainingSample, parse_json(line), str(path)) for line in lines]
        return SampleTable(
            ("episode", "prompt", "response", "score", "KL"),
            [
                (row.episode, row.prompt, row.response, row.score, row.kl)
                for row in rows[-MOST_SAMPLES:]
            ],
        )
    if stage != EVALUATION.name:
        return None
    samples = [
        from_json(EvaluationSample, parse_json(line), str(path)) for line in lines[:MOST_SAMPLES]
    ]
    policies = list(dict.fromkeys(name for row in samples for name in row.responses))
    names = [f"{policy} {what}" for policy in policies for what in ("response", "score", "gold")]
    return SampleTable(
        ("prompt", *names),
        [
            (row.prompt, *(cell for policy in policies for cell in _cells(row, policy)))
            for row in samples
        ],
    )


def _cells(row: EvaluationSample, policy: str) -> tuple[str | float | None, ...]:
    scores = row.scores.get(policy) or SampleScores()
    return row.responses.get(policy), scores.proxy, scores.gold
