"""Contents of a run folder, read for its report; stages that have not run are empty."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import CheckpointError
from rlhfctl.run.directory import (
    HELD_OUT_FILE,
    METRICS_FILE,
    OVER_OPTIMISATION_FILE,
    SAMPLES_FILE,
    RunDirectory,
)
from rlhfctl.run.manifest import Manifest, StageRecord
from rlhfctl.run.monitor import read_metrics
from rlhfctl.stage_table import EVALUATION, PPO, STAGES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rlhfctl.stage_table import Stage

MOST_SAMPLES = 64


@dataclass(frozen=True)
class RunFacts:
    """Contents of a report.

    Attributes:
        name: The run's name.
        recipe: The resolved recipe on disk; empty if there is none.
        records: The finished stages.
        curves: Each stage's logged steps, of unfinished stages too.
        evaluation: The evaluation's metrics; empty before the first evaluation.
        samples: Held-out prompts with each policy's response and scores.
        training_samples: Responses saved during PPO.
        held_out: PPO's held-out evaluations, without per-prompt metrics.
        over_optimisation: Summary of those evaluations; empty without any.
    """

    name: str
    recipe: str
    records: Mapping[str, StageRecord]
    curves: Mapping[str, list[dict[str, Any]]]
    evaluation: Mapping[str, Any]
    samples: list[dict[str, Any]]
    training_samples: list[dict[str, Any]]
    held_out: list[dict[str, Any]] = field(default_factory=list)
    over_optimisation: Mapping[str, Any] = field(default_factory=dict)

    def stage_metrics(self, stage: Stage) -> Mapping[str, Any]:
        """Return the metrics of a stage; empty if it is not finished."""
        record = self.records.get(stage.name)
        return record.metrics if record else {}

    def unit(self, stage: Stage) -> str:
        """Return the unit of a stage's steps: the counter equal to its last step, else steps."""
        steps = self.curves.get(stage.name, [])
        last = steps[-1].get("step") if steps else None
        for unit in ("episodes", "rollouts"):
            if last is not None and self.stage_metrics(stage).get(unit) == last:
                return unit
        return "steps"

    def stale(self) -> list[tuple[str, str]]:
        """Return (stage, input stage) where the input was re-run after the stage used it."""
        return [
            (name, used)
            for name, record in self.records.items()
            for used, artifact in record.inputs.items()
            if used in self.records
            and (made := self.records[used].outputs.get(used)) is not None
            and made.path == artifact.path
            and made.sha256 != artifact.sha256
        ]


def read_run(root: Path) -> RunFacts:
    """Read a run folder.

    Raises:
        CheckpointError: If there is no such folder, or a file in it is damaged.
    """
    directory = RunDirectory(root)
    if not root.is_dir():
        raise CheckpointError(
            "run folder not found", where=str(root), hint="Start one with: rlhfctl run"
        )
    manifest = Manifest.load(directory.manifest)
    recipe = directory.recipe
    metrics_file = directory.stage(EVALUATION.folder) / METRICS_FILE
    evaluated = manifest.stages.get(EVALUATION.name)
    metrics = read_object(metrics_file) if metrics_file.exists() else {}
    summary_file = directory.stage(PPO.folder) / OVER_OPTIMISATION_FILE
    return RunFacts(
        name=root.resolve().name,
        recipe=recipe.read_text(encoding="utf-8", errors="replace") if recipe.exists() else "",
        records=manifest.stages,
        curves={stage.name: _read_curve(directory.metrics(stage.name)) for stage in STAGES},
        evaluation=metrics or (evaluated.metrics if evaluated else {}),
        samples=_read_rows(directory.stage(EVALUATION.folder) / SAMPLES_FILE)[:MOST_SAMPLES],
        training_samples=_read_rows(directory.stage(PPO.folder) / SAMPLES_FILE)[-MOST_SAMPLES:],
        held_out=[
            {name: value for name, value in row.items() if name != "each"}
            for row in _read_rows(directory.stage(PPO.folder) / HELD_OUT_FILE)
        ],
        over_optimisation=read_object(summary_file) if summary_file.exists() else {},
    )


def read_object(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file.

    Raises:
        CheckpointError: If it holds no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(value, dict):
        raise _damaged(path, "it holds no JSON object")
    return value


def _read_curve(path: Path) -> list[dict[str, Any]]:
    try:
        return read_metrics(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return [row for row in rows if isinstance(row, dict)]


def _damaged(path: Path, reason: object) -> CheckpointError:
    return CheckpointError(
        f"the report cannot read this file ({reason})",
        where=str(path),
        hint="Re-run its stage with --force.",
    )
