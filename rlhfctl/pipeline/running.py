"""Runs stages one after another: staging, records, metrics, trackers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from rlhfctl.errors import CheckpointError, DivergedError
from rlhfctl.pipeline.conclusions import WrittenReport, conclusion_of, flat_settings
from rlhfctl.pipeline.inputs import artifacts_of, find_checkpoints, outdated_inputs
from rlhfctl.pipeline.planning import StagePlan, plan_stage
from rlhfctl.pipeline.processes import (
    StageLoader,
    load_stage,
    run_in_all_processes,
)
from rlhfctl.pipeline.repositories import read_repositories
from rlhfctl.recipe.load import dump_recipe
from rlhfctl.run import staging, stop
from rlhfctl.run.directory import DIVERGED_FILE
from rlhfctl.run.machine import machine
from rlhfctl.run.manifest import Artifact, Manifest, StageOutcome, StageRecord
from rlhfctl.run.monitor import MetricsLog, Monitor, MultiMonitor
from rlhfctl.run.process_group import ProcessGroup, refuse_sharding
from rlhfctl.run.progress_file import ProgressFile
from rlhfctl.run.resumption import UNCHANGED, Resumption
from rlhfctl.run.trackers import Address
from rlhfctl.run.tracking import TrackerMonitor
from rlhfctl.run.versions import installed_versions
from rlhfctl.stage_table import ALL_STAGES, Stage, stage_named

if TYPE_CHECKING:
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.directory import RunDirectory
    from rlhfctl.run.staging import Attempt


@dataclass(frozen=True)
class StageResult:
    """The outcome of one stage of a command.

    Attributes:
        stage: Its name.
        status: `done` when it ran, `skipped` when it was up to date.
        record: Its record in the manifest.
        reasons: Why it ran again; empty for a first run.
    """

    stage: str
    status: Literal["done", "skipped"]
    record: StageRecord
    reasons: tuple[str, ...] = ()


def run_stages(
    recipe: Recipe,
    directory: RunDirectory,
    stages: Sequence[str],
    monitor: Monitor,
    *,
    resumption: Resumption = UNCHANGED,
    load: StageLoader = load_stage,
    group: ProcessGroup | None = None,
    write_report: Callable[[], WrittenReport] | None = None,
) -> list[StageResult]:
    """Bring stages up to date, in order, while holding the run folder's lock.

    With several processes, process 0 calls this and the others call `worker_loop`.

    Args:
        recipe: The whole recipe.
        directory: The run's; created if missing.
        stages: Names of stages, in the order of `ALL_STAGES`.
        monitor: Receives progress, notes and warnings.
        resumption: Whether stages start from their beginning, and what may have changed since an
            interruption.
        load: Returns a stage's function when the stage starts.
        group: The processes that share the work.
        write_report: Writes the report of an evaluation for the recipe's trackers.

    Raises:
        RlhfctlError: A stage cannot run or failed; earlier results are unchanged. A new run whose
            first stage cannot run has no folder.
        Stopped: A signal to stop was received.
    """
    require_start(recipe, directory, stages)
    directory.create()
    group = group or ProcessGroup()
    with directory.lock(), stop.handled():
        group.join()
        manifest = Manifest.load(directory.manifest)
        for stage in ALL_STAGES:
            staging.recover(directory, stage.name, manifest.stages.get(stage.name))
        results: list[StageResult] = []
        for number, stage in enumerate(map(stage_named, stages), start=1):
            runner = _StageRunner(
                recipe,
                directory,
                stage,
                f"[{number}/{len(stages)}]",
                monitor,
                manifest,
                group,
                write_report,
            )
            result = runner.bring_up_to_date(resumption, load)
            manifest = manifest.with_stage(result.record)
            results.append(result)
            stop.check()
        group.shutdown()
        return results


def require_start(recipe: Recipe, directory: RunDirectory, stages: Sequence[str]) -> None:
    """Check, before there is a run folder, that the first of some stages can run.

    Raises:
        RlhfctlError: Results of earlier stages are missing, or cannot be used.
    """
    refuse_sharding(stages)
    if not directory.recipe.exists() and not directory.manifest.exists():
        find_checkpoints(recipe, directory, stage_named(stages[0]), Manifest())


@dataclass(frozen=True)
class _StageRunner:
    """One stage of one call of `run_stages`; `position` is such as ``[1/4]``."""

    recipe: Recipe
    directory: RunDirectory
    stage: Stage
    position: str
    monitor: Monitor
    manifest: Manifest
    group: ProcessGroup
    write_report: Callable[[], WrittenReport] | None = None

    def bring_up_to_date(self, resumption: Resumption, load: StageLoader) -> StageResult:
        """Run the stage unless it is up to date."""
        plan = plan_stage(self.recipe, self.directory, self.stage, self.manifest)
        for warning in outdated_inputs(self.recipe, self.directory, self.stage, self.manifest):
            self.monitor.warn(warning)
        name, heading = self.stage.name, f"{self.position} {self.stage.title}"
        reasons: tuple[str, ...] = ()
        if plan.record is not None:
            if plan.is_up_to_date and not resumption.force:
                self.monitor.note(f"{heading}: up to date, skipped")
                return StageResult(name, "skipped", plan.record)
            reasons = plan.reasons or ("--force",)
            self.monitor.note(f"Re-running {name}: {'; '.join(reasons)}")
        attempt = staging.open_partial(
            self.directory,
            name,
            plan.recipe_part,
            plan.inputs,
            resumption,
            self.group.count,
            plan.defaults,
        )
        with staging.recipe_written(self.directory, name, dump_recipe(self.recipe)):
            resumed = ": resuming from a checkpoint" if attempt.resuming else ""
            self.monitor.note(f"{heading}{resumed}")
            self.directory.link_latest()
            self.monitor.begin(heading)
            for change in attempt.changes:
                self.monitor.warn(f"{name} is resumed although {change}")
            record = self._run(plan, load, attempt)
        return StageResult(name, "done", record, reasons)

    def _run(self, plan: StagePlan, load: StageLoader, attempt: Attempt) -> StageRecord:
        name, directory = self.stage.name, self.directory
        started, clock = datetime.now(UTC), time.monotonic()
        metrics_log = MetricsLog(directory.partial_metrics(name), resume=attempt.resuming)
        trackers = self._trackers(plan.recipe_part)
        heading = f"{self.position} {self.stage.title}"
        progress_file = ProgressFile(directory.progress, name, heading)
        monitor = MultiMonitor([metrics_log, progress_file, self.monitor, trackers])
        try:
            outcome = self._outcome(plan, load, monitor)
            with stop.deferred(self.monitor.note):
                record = self._record(plan, attempt, outcome, started, clock)
                if self.recipe.tracking.report_to:
                    trackers.conclude(conclusion_of(record, directory, self.write_report))
                return record
        finally:
            progress_file.close()
            trackers.close()

    def _outcome(self, plan: StagePlan, load: StageLoader, monitor: Monitor) -> StageOutcome:
        """Run the stage; if it fails, keep or discard its partial folder."""
        name = self.stage.name
        try:
            return run_in_all_processes(
                self.recipe, self.directory, self.stage, plan.checkpoints, monitor, self.group, load
            )
        except BaseException as error:
            if isinstance(error, stop.Stopped):
                stop.begin(error.number)
            resumable = self._keep_or_discard(error)
            if isinstance(error, stop.Stopped):
                error.resumption = (
                    f"a checkpoint of {name} was kept; re-running the command resumes from it"
                    if resumable
                    else f"{name} had saved no checkpoint; finished stages are kept, and re-running "
                    f"the command starts {name} again"
                )
            raise

    def _record(
        self,
        plan: StagePlan,
        attempt: Attempt,
        outcome: StageOutcome,
        started: datetime,
        clock: float,
    ) -> StageRecord:
        """Make the partial folder the result, and record it in the manifest."""
        name, directory = self.stage.name, self.directory
        log = directory.partial_metrics(name)
        staging.promote(directory, name)
        record = StageRecord(
            stage=name,
            recipe_part=plan.recipe_part,
            inputs=plan.inputs,
            outputs=artifacts_of({name: directory.stage(name)}, directory.root),
            metrics=self._finite(outcome.metrics),
            versions=installed_versions(),
            machine=machine(),
            repositories=read_repositories(self.recipe, self.stage),
            seed=self.recipe.seed,
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - clock, 3),
            rows=dict(outcome.rows),
            changes=list(attempt.changes),
            log=replace(
                Artifact.of(log, directory.root),
                path=directory.metrics(name).relative_to(directory.root).as_posix(),
            ),
        )
        manifest = self.manifest.with_stage(record)
        manifest.save(directory.manifest)
        log.replace(directory.metrics(name))
        named = [item for other in manifest.stages.values() for item in other.inputs.values()]
        staging.clean_up(directory, name, named)
        return record

    def _trackers(self, part: Mapping[str, Any]) -> TrackerMonitor:
        tracking, directory = self.recipe.tracking, self.directory
        address = Address(tracking.project, directory.name, self.stage.name, directory.logs)
        return TrackerMonitor(tracking.report_to, address, dict(flat_settings(part)), self.monitor)

    def _keep_or_discard(self, error: BaseException) -> bool:
        """Keep the partial folder of a failed stage if it can be resumed; else remove it.

        Returns:
            Whether it was kept.
        """
        name, directory = self.stage.name, self.directory
        self._keep_batch(error)
        if staging.has_checkpoints(directory.partial(name)):
            self._report_checkpoint(error)
            return True
        staging.discard_partial(directory, name)
        recorded = name in self.manifest.stages
        metrics = directory.failed_metrics(name) if recorded else directory.metrics(name)
        directory.partial_metrics(name).replace(metrics)
        return False

    def _keep_batch(self, error: BaseException) -> None:
        """Move the batch of a stage that diverged to the logs, and name it in the error."""
        batch = self.directory.partial(self.stage.name) / DIVERGED_FILE
        if isinstance(error, DivergedError) and batch.exists():
            moved = batch.replace(self.directory.diverged_batch(self.stage.name))
            error.hint = f"{error.hint}\nThe batch is in {moved}.".strip()

    def _report_checkpoint(self, error: BaseException) -> None:
        """Say that a checkpoint was kept, unless the stage failed because none is usable.

        A stop says it itself.
        """
        name = self.stage.name
        if isinstance(error, CheckpointError | stop.Stopped):
            return
        message = f"a checkpoint of {name} was kept; re-running the command resumes from it"
        if isinstance(error, DivergedError):
            message += ", which diverges again; to resume with another setting, add "
            message += "--set KEY=VALUE --allow-change KEY"
        self.monitor.note(message)

    def _finite(self, value: Any, name: str = "") -> Any:
        """Replace NaN and infinite metrics, which JSON cannot hold, by null, with a warning."""
        if isinstance(value, Mapping):
            return {key: self._finite(item, f"{name}.{key}") for key, item in value.items()}
        if isinstance(value, float) and not math.isfinite(value):
            self.monitor.warn(f"{self.stage.name}: metric {name.removeprefix('.')} is {value}")
            return None
        return value
