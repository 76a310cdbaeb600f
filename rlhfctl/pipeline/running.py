"""Run the stages that are not up to date, with all processes, and record their results."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from rlhfctl.pipeline.planning import StagePlan
from rlhfctl.pipeline.termination import terminable
from rlhfctl.pipeline.worker import StageLoader, load_stage
from rlhfctl.recipe.load import dump_recipe
from rlhfctl.recipe.view import view
from rlhfctl.run import staging
from rlhfctl.run.gates import parse_gates
from rlhfctl.run.manifest import Manifest, StageOutcome, StageRecord
from rlhfctl.run.monitor import MetricsLog, Monitor, MultiMonitor
from rlhfctl.run.process_group import ProcessGroup, refuse_sharding
from rlhfctl.run.tracking import TrackerMonitor
from rlhfctl.run.versions import installed_versions
from rlhfctl.stage_table import STAGE_NAMES, stage_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.directory import RunDirectory


@dataclass(frozen=True)
class StageResult:
    """The outcome of one stage of a command.

    Attributes:
        stage: The stage's name.
        status: `done` if it ran, `skipped` if its record was up to date.
        record: Its record in the manifest.
        reasons: Why a stage that had finished before was run again.
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
    force: bool = False,
    load: StageLoader = load_stage,
    group: ProcessGroup | None = None,
) -> list[StageResult]:
    """Bring stages up to date, in order, holding the run folder's lock.

    With several processes, process 0 calls this and the others run `worker_loop`.

    Args:
        recipe: The whole recipe.
        directory: The run folder; created if it does not exist.
        stages: Names out of `STAGE_NAMES`, in that order.
        monitor: Receives progress, notes and warnings.
        force: Run stages whose records are up to date, too.
        load: Returns a stage's function when the stage starts.
        group: The processes that share the work.

    Raises:
        RlhfctlError: A stage cannot run or failed; earlier results are unchanged.
        Terminated: SIGTERM was received.
    """
    parse_gates(recipe.evaluation.gates)
    refuse_sharding(stages)
    directory.create()
    group = group or ProcessGroup()
    with directory.lock(), terminable():
        group.join()
        manifest = Manifest.load(directory.manifest)
        for name in STAGE_NAMES:
            staging.recover(directory, name, manifest.stages.get(name))
        results: list[StageResult] = []
        for number, name in enumerate(stages, start=1):
            plan = StagePlan(recipe, directory, stage_named(name), manifest)
            heading = f"[{number}/{len(stages)}] {plan.stage.title}"
            result = _StageRun(plan, monitor, group, load).bring_up_to_date(heading, force=force)
            manifest = manifest.with_stage(result.record)
            results.append(result)
        group.shutdown()
        return results


@dataclass(frozen=True)
class _StageRun:
    """One stage of one call of `run_stages`."""

    plan: StagePlan
    monitor: Monitor
    group: ProcessGroup
    load: StageLoader

    def bring_up_to_date(self, heading: str, *, force: bool) -> StageResult:
        """Run the stage unless its record is up to date."""
        plan, name = self.plan, self.plan.stage.name
        artifacts = plan.artifacts
        plan.warn_of_stale_inputs(self.monitor)
        reasons: list[str] = []
        if plan.record is not None:
            reasons = plan.reasons()
            if not reasons and not force:
                self.monitor.note(f"{heading}: {name} is up to date, skipped")
                return StageResult(name, "skipped", plan.record)
            reasons = reasons or ["--force"]
            self.monitor.note(f"Re-running {name}: {'; '.join(reasons)}")
        target = plan.directory, name
        with staging.recipe_written(*target, dump_recipe(plan.recipe)):
            resuming = staging.open_partial(*target, plan.recipe_part, artifacts, fresh=force)
            how = ", resuming from a checkpoint" if resuming else ""
            self.monitor.note(f"{heading}{how}")
            record = self._run(resuming=resuming)
        return StageResult(name, "done", record, tuple(reasons))

    def _run(self, *, resuming: bool) -> StageRecord:
        plan, directory, name = self.plan, self.plan.directory, self.plan.stage.name
        started, clock = datetime.now(UTC), time.monotonic()
        metrics_log = MetricsLog(directory.partial_metrics(name), resume=resuming)
        trackers = self._trackers()
        try:
            outcome = self._run_on_all_processes(
                MultiMonitor([metrics_log, self.monitor, trackers])
            )
        except BaseException as error:
            self._keep_or_discard_partial(interrupted=not isinstance(error, Exception))
            raise
        finally:
            trackers.close()
        staging.promote(directory, name)
        record = StageRecord(
            stage=name,
            recipe_part=plan.recipe_part,
            inputs=dict(plan.artifacts),
            outputs=plan.digests({name: directory.stage(name)}),
            metrics=self._finite(outcome.metrics),
            versions=installed_versions(),
            seed=plan.recipe.seed,
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - clock, 3),
        )
        plan.manifest.with_stage(record).save(directory.manifest)
        directory.partial_metrics(name).replace(directory.metrics(name))
        staging.clean_up(directory, name)
        return record

    def _run_on_all_processes(self, monitor: Monitor) -> StageOutcome:
        plan, stage, inputs = self.plan, self.plan.stage, self.plan.checkpoints
        partial, recipe = plan.directory.partial(stage.name), view(plan.recipe, stage)
        if stage.main_process_only:
            return self.load(stage.name)(recipe, inputs, partial, monitor)
        self.group.broadcast(
            {
                "stage": stage.name,
                "recipe": plan.recipe.model_dump_json(),
                "inputs": {name: str(path.absolute()) for name, path in inputs.items()},
                "output": str(partial.absolute()),
                "logs": str(plan.directory.logs.absolute()),
            }
        )
        outcome = self.load(stage.name)(recipe, inputs, partial, monitor)
        self.group.await_others()
        return outcome

    def _trackers(self) -> TrackerMonitor:
        settings = {
            f"{section}.{key}": value
            for section, values in self.plan.recipe_part.items()
            if isinstance(values, dict)
            for key, value in values.items()
        }
        return TrackerMonitor(
            self.plan.recipe.tracking.report_to,
            f"{self.plan.directory.name}-{self.plan.stage.name}",
            self.plan.directory.logs,
            settings,
            self.monitor,
        )

    def _keep_or_discard_partial(self, *, interrupted: bool) -> None:
        directory, name = self.plan.directory, self.plan.stage.name
        if staging.has_checkpoints(directory.partial(name)):
            self.monitor.note(
                f"a checkpoint of {name} was kept; re-running the command resumes from it"
            )
            return
        if interrupted:
            self.monitor.note(f"no checkpoint of {name} had been saved; it will start over")
        staging.discard_partial(directory, name)
        failed = directory.metrics if self.plan.record is None else directory.failed_metrics
        directory.partial_metrics(name).replace(failed(name))

    def _finite(self, value: Any, name: str = "") -> Any:
        """Replace metrics that JSON cannot hold by null, with a warning."""
        if isinstance(value, Mapping):
            return {key: self._finite(item, f"{name}.{key}") for key, item in value.items()}
        if isinstance(value, float) and not math.isfinite(value):
            self.monitor.warn(
                f"{self.plan.stage.name}: the metric {name.removeprefix('.')} is {value}"
            )
            return None
        return value
