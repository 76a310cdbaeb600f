"""Contents of a run folder, read for its report; stages that have not run are empty."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rlhfctl.errors import CheckpointError
from rlhfctl.json_text import parse_json
from rlhfctl.report.numbers import finite
from rlhfctl.report.policy_name import policy_name
from rlhfctl.results.evaluation import Comparison, EvaluationResult
from rlhfctl.results.io import from_json
from rlhfctl.results.samples import EvaluationSample, TrainingSample
from rlhfctl.results.training import (
    DPOResult,
    HeldOutLine,
    OverOptimisation,
    PPOResult,
    RewardModelResult,
    SFTResult,
)
from rlhfctl.run.directory import (
    HELD_OUT_FILE,
    METRICS_FILE,
    OVER_OPTIMISATION_FILE,
    SAMPLES_FILE,
    RunDirectory,
)
from rlhfctl.run.manifest import Manifest, StageRecord
from rlhfctl.run.monitor import read_metrics
from rlhfctl.run.staleness import log_change, output_changes
from rlhfctl.stage_table import ALL_STAGES, DPO, EVALUATION, PPO, REWARD_MODEL, SFT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from rlhfctl.results.evaluation import PolicyMetrics
    from rlhfctl.stage_table import Stage

T = TypeVar("T")
LogStep = dict[str, float | None]
"""One line of a stage's log: its numbers by name, None where not finite."""

MOST_SAMPLES = 64


@dataclass(frozen=True)
class RunFacts:
    """Contents of a report.

    Attributes:
        name: The run's name.
        recipe: The resolved recipe on disk; empty if there is none.
        records: The finished stages.
        curves: Each stage's logged steps, of unfinished stages too.
        sft: Result of SFT; None before it is finished.
        reward_model: Result of the reward model; None before it is finished.
        ppo: Result of PPO; None before it is finished.
        dpo: Result of DPO; None before it is finished.
        evaluation: Result of the evaluation; None before the first.
        samples: Held-out prompts with each policy's response and scores.
        training_samples: Responses saved during PPO.
        held_out: PPO's held-out evaluations.
        over_optimisation: Summary of those evaluations; None without any.
        unreadable: A sentence per file or record that another version of rlhfctl wrote, whose part
            of the report is left out, and per result that was changed.
        policy_name: Method of the policy that was evaluated against SFT, `PPO` or `DPO`.
    """

    name: str
    recipe: str
    records: Mapping[str, StageRecord]
    curves: Mapping[str, list[LogStep]]
    sft: SFTResult | None = None
    reward_model: RewardModelResult | None = None
    ppo: PPOResult | None = None
    dpo: DPOResult | None = None
    evaluation: EvaluationResult | None = None
    samples: list[EvaluationSample] = field(default_factory=list)
    training_samples: list[TrainingSample] = field(default_factory=list)
    held_out: list[HeldOutLine] = field(default_factory=list)
    over_optimisation: OverOptimisation | None = None
    unreadable: tuple[str, ...] = ()
    policy_name: str = PPO.title

    @property
    def comparison(self) -> Comparison:
        """PPO against SFT; without metrics if the two were not compared."""
        return (self.evaluation and self.evaluation.comparison) or Comparison()

    def policy(self, name: str) -> PolicyMetrics | None:
        """Return the metrics of one policy; None if it was not evaluated."""
        return self.evaluation.policies.get(name) if self.evaluation else None

    def unit(self, stage: Stage) -> str:
        """Return the unit of a stage's steps: the counter equal to its last step, else steps."""
        steps = self.curves.get(stage.name, [])
        last = steps[-1].get("step") if steps else None
        if last is None or stage is not PPO or self.ppo is None:
            return "steps"
        counters = (("episodes", self.ppo.episodes), ("rollouts", self.ppo.rollouts))
        return next((unit for unit, count in counters if count == last), "steps")

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

    A file or record that is intact but has another version's fields is left out and named in
    `unreadable`: the rest of a run is worth showing, and its missing part is a caution.

    Raises:
        CheckpointError: If there is no such folder, or a file in it is damaged.
    """
    directory = RunDirectory(root)
    if not root.is_dir():
        raise CheckpointError(
            "run folder not found", where=str(root), hint="Start one with: rlhfctl run"
        )
    records = Manifest.load(directory.manifest).stages
    recipe = directory.recipe
    ppo, evaluation = directory.stage(PPO.folder), directory.stage(EVALUATION.folder)
    metrics_file, summary_file = evaluation / METRICS_FILE, ppo / OVER_OPTIMISATION_FILE
    reader = _Reader(directory.manifest, records)
    return RunFacts(
        name=root.resolve().name,
        recipe=recipe.read_text(encoding="utf-8", errors="replace") if recipe.exists() else "",
        records=records,
        curves={stage.name: _read_curve(directory.metrics(stage.name)) for stage in ALL_STAGES},
        sft=reader.record(SFT, SFTResult),
        reward_model=reader.record(REWARD_MODEL, RewardModelResult),
        ppo=reader.record(PPO, PPOResult),
        dpo=reader.record(DPO, DPOResult),
        evaluation=reader.file(metrics_file, EvaluationResult)
        if metrics_file.exists()
        else reader.record(EVALUATION, EvaluationResult),
        samples=reader.rows(evaluation / SAMPLES_FILE, EvaluationSample, slice(MOST_SAMPLES)),
        training_samples=reader.rows(
            ppo / SAMPLES_FILE, TrainingSample, slice(-MOST_SAMPLES, None)
        ),
        held_out=reader.rows(ppo / HELD_OUT_FILE, HeldOutLine),
        over_optimisation=reader.file(summary_file, OverOptimisation),
        policy_name=policy_name(records.get(EVALUATION.name), root),
        unreadable=(*reader.unreadable, *_changed_results(directory, records)),
    )


def _changed_results(directory: RunDirectory, records: Mapping[str, StageRecord]) -> Iterator[str]:
    """Yield a sentence per result that the report shows and that was changed since its record."""
    for stage in ALL_STAGES:
        record = records.get(stage.name)
        if record is None:
            continue
        changes = output_changes(record, directory) if stage in (PPO, EVALUATION) else []
        log = log_change(record, directory)
        for change in [*changes, log] if log is not None else changes:
            yield (
                f"{change.capitalize()} since it was recorded, so numbers of this report may be "
                f"others than the run's. Re-run the stage: rlhfctl {stage.command}"
            )


class _Reader:
    """Reads typed results; collects a sentence for each that has other fields."""

    def __init__(self, manifest: Path, records: Mapping[str, StageRecord]) -> None:
        self._manifest = manifest
        self._records = records
        self.unreadable: list[str] = []

    def record(self, stage: Stage, kind: type[T]) -> T | None:
        """Return a stage's metrics in the manifest; None if it is not finished."""
        record = self._records.get(stage.name)
        if record is None:
            return None
        return self._typed(partial(record.result, kind, self._manifest))

    def file(self, path: Path, kind: type[T]) -> T | None:
        """Return the object of a JSON file; None if it does not exist."""
        if not path.exists():
            return None
        value = read_object(path)
        return self._typed(partial(from_json, kind, value, str(path)))

    def rows(self, path: Path, kind: type[T], part: slice = slice(None)) -> list[T]:
        """Return some objects of a file of JSON lines; none if it does not exist."""
        values = list(enumerate(_read_lines(path), 1))[part]
        return (
            self._typed(
                lambda: [from_json(kind, value, f"{path}:{line}") for line, value in values]
            )
            or []
        )

    def _typed(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except CheckpointError as error:
            self.unreadable.append(
                f"{error.where} has another format ({error.what}), so its part of the report is "
                f"left out. {error.hint}"
            )
            return None


def read_object(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file.

    Raises:
        CheckpointError: If it holds no object.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(value, dict):
        raise _damaged(path, "it holds no JSON object")
    return value


def _read_curve(path: Path) -> list[LogStep]:
    """Return the numbers of each logged line; other values, such as the time, are left out."""
    try:
        return [
            {name: finite(value) for name, value in line.items() if not isinstance(value, str)}
            for line in read_metrics(path)
        ]
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_lines(path: Path) -> list[Any]:
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [parse_json(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, reason: object) -> CheckpointError:
    return CheckpointError(
        f"the report cannot read this file ({reason})",
        where=str(path),
        hint="Re-run its stage with --force.",
    )
