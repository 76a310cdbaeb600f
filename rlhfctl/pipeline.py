"""Walks the stages: finds their inputs, skips what still stands, runs the rest, records it."""

from __future__ import annotations

import importlib
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import rlhfctl
from rlhfctl.errors import CheckpointError
from rlhfctl.recipe.load import dump_recipe
from rlhfctl.recipe.ppo import source_file
from rlhfctl.recipe.schema import Recipe
from rlhfctl.recipe.view import stage_part, view
from rlhfctl.run import staging
from rlhfctl.run.gates import parse_gates
from rlhfctl.run.log_capture import capture_logs
from rlhfctl.run.manifest import Artifact, Manifest, StageOutcome, StageRecord
from rlhfctl.run.monitor import MetricsLog, Monitor, MultiMonitor, NullMonitor
from rlhfctl.run.process_group import ProcessGroup, refuse_sharding
from rlhfctl.run.staleness import changes, output_changes, recipe_changes
from rlhfctl.run.tracking import TrackerMonitor
from rlhfctl.run.versions import installed_versions
from rlhfctl.stage_table import STAGE_NAMES as STAGES
from rlhfctl.stage_table import stage_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.run.directory import RunDirectory

StageFunction = Callable[[Recipe, Mapping[str, Path], Path, Monitor], StageOutcome]
StageLoader = Callable[[str], StageFunction]

_log = logging.getLogger("rlhfctl")

COMMANDS = {"sft": "sft", "rm": "train-rm", "ppo": "ppo", "eval": "eval"}

_NEEDS: dict[str, tuple[str, ...]] = {
    "sft": (),
    "rm": ("sft",),
    "ppo": ("sft", "rm"),
    "eval": ("sft",),
}
_TAKES: dict[str, tuple[str, ...]] = {**_NEEDS, "eval": ("sft", "rm", "ppo")}
_OF_PROCESS_0 = {"eval"}
"""Stages that the first process does alone, while others wait."""
_TITLES = {"sft": "an SFT checkpoint", "rm": "a reward model", "ppo": "a PPO policy"}


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt, no failure that a stage should handle."""


@dataclass(frozen=True)
class StageResult:
    """What became of one stage.

    Attributes:
        stage: Its name.
        status: `done` when it ran, `skipped` when its record still stood.
        record: Its record in the manifest.
        reasons: Why it ran although it had been done before.
    """

    stage: str
    status: Literal["done", "skipped"]
    record: StageRecord
    reasons: tuple[str, ...] = ()


def load_stage(name: str) -> StageFunction:
    """Import a stage's module, and with it torch and the libraries, only when it starts."""
    module = importlib.import_module(f"rlhfctl.stages.{stage_named(name).module}.stage")
    function: StageFunction = module.run
    return function


def external_checkpoints(recipe: Recipe, stage: str) -> dict[str, str]:
    """Return the checkpoints that the recipe names for a stage, in place of the run's own.

    `eval` judges what PPO was given, unless it names its own.
    """
    ppo, judged = recipe.ppo, recipe.evaluation
    named: dict[str, dict[str, str | None]] = {
        "sft": {},
        "rm": {"sft": recipe.reward_model.sft},
        "ppo": {"sft": ppo.sft, "rm": ppo.rm},
        "eval": {"sft": judged.sft or ppo.sft, "rm": judged.rm or ppo.rm, "ppo": judged.ppo},
    }
    return {name: path for name, path in named[stage].items() if path is not None}


def _takes(recipe: Recipe, stage: str) -> tuple[str, ...]:
    """Return what a stage reads; PPO and its context no reward model that gives no scores."""
    unread = "" if stage not in {"ppo", "eval"} or recipe.ppo.uses_rm else "rm"
    return tuple(name for name in _TAKES[stage] if name != unread)


def needed_stages(recipe: Recipe) -> list[str]:
    """Return the stages of a whole run: all, but those whose results are replaced or not read."""
    wanted = {"eval"}
    for stage in reversed(STAGES):
        if stage in wanted:
            wanted |= set(_takes(recipe, stage)) - set(external_checkpoints(recipe, stage))
    return [stage for stage in STAGES if stage in wanted]


def is_finished(recipe: Recipe, directory: RunDirectory, stages: Sequence[str]) -> bool:
    """Whether the records of stages are all there and still stand, so that none would run.

    Raises:
        CheckpointError: The manifest, or a file that the recipe names, cannot be read.
    """
    manifest = Manifest.load(directory.manifest)
    for stage in stages:
        step = _Step(recipe, directory, stage, NullMonitor(), manifest, ProcessGroup())
        if stage not in manifest.stages or not step.stands():
            return False
    return True


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

    Where there are several processes, this is for process 0; the others run `worker_loop`.

    Args:
        recipe: The whole recipe.
        directory: The run's; made when it is not there.
        stages: Names out of `STAGES`, in that order.
        monitor: Told of everything that a user wants to see.
        force: Run them even where their records still stand.
        load: Gives a stage's function when the stage starts.
        group: The processes that share the work.

    Raises:
        RlhfctlError: A stage cannot run or failed; results of earlier tries are unchanged.
        Terminated: SIGTERM came.
    """
    parse_gates(recipe.evaluation.gates)
    refuse_sharding(stages)
    directory.create()
    group = group or ProcessGroup()
    with directory.lock(), terminable():
        group.join()
        manifest = Manifest.load(directory.manifest)
        for stage in STAGES:
            staging.recover(directory, stage, manifest.stages.get(stage))
        results: list[StageResult] = []
        for stage in stages:
            step = _Step(recipe, directory, stage, monitor, manifest, group)
            result = step.bring_up_to_date(force, load)
            manifest = manifest.with_stage(result.record)
            results.append(result)
        group.dismiss()
        return results


def worker_loop(group: ProcessGroup, load: StageLoader = load_stage) -> None:
    """Work with process 0, which runs `run_stages`, until it has no more stages.

    Only process 0 writes and tells; a stage in another process has nobody to tell.

    Raises:
        RlhfctlError: A stage failed, here or elsewhere.
        Terminated: SIGTERM came.
    """
    with terminable():
        group.join()
        for order in group.orders():
            recipe = Recipe.model_validate_json(order["recipe"])
            readable = view(recipe, stage_named(order["stage"]))
            inputs = {name: Path(path) for name, path in order["inputs"].items()}
            log = Path(order["logs"]) / f"rank-{group.rank}.log"
            with capture_logs(log, f"process {group.rank}: {order['stage']}"):
                try:
                    load(order["stage"])(readable, inputs, Path(order["output"]), NullMonitor())
                except BaseException:
                    _log.exception("%s ended early", order["stage"])
                    raise
            group.finished()


@dataclass(frozen=True)
class _Step:
    """One stage of one call of `run_stages`."""

    recipe: Recipe
    directory: RunDirectory
    stage: str
    monitor: Monitor
    manifest: Manifest
    group: ProcessGroup

    def bring_up_to_date(self, force: bool, load: StageLoader) -> StageResult:
        """Run the stage unless its record still stands."""
        inputs = self._checkpoints()
        artifacts = self._artifacts({**inputs, **self._sources()})
        part = stage_part(self.recipe, stage_named(self.stage))
        record = self.manifest.stages.get(self.stage)
        reasons: list[str] = []
        if record is not None:
            reasons = changes(record, part, artifacts, self.directory)
            if not reasons and not force:
                self.monitor.note(f"{self.stage} is up to date, skipped")
                return StageResult(self.stage, "skipped", record)
            reasons = reasons or ["--force"]
            self.monitor.note(f"{self.stage} is done again: {'; '.join(reasons)}")
        at = self.directory, self.stage
        with staging.recipe_written(*at, dump_recipe(self.recipe)):
            resuming = staging.open_partial(*at, part, artifacts, fresh=force)
            how = "goes on from the checkpoint of an interrupted try" if resuming else "begins"
            self.monitor.note(f"{self.stage} {how}")
            new = self._run(inputs, artifacts, part, load, resuming)
        return StageResult(self.stage, "done", new, tuple(reasons))

    def stands(self) -> bool:
        """Whether the stage's record, which there must be, would be kept."""
        named = external_checkpoints(self.recipe, self.stage).values()
        if not all(Path(path).expanduser().is_dir() for path in named):
            return False
        artifacts = self._artifacts({**self._checkpoints(), **self._sources()})
        part = stage_part(self.recipe, stage_named(self.stage))
        return not changes(self.manifest.stages[self.stage], part, artifacts, self.directory)

    def _run(
        self,
        inputs: Mapping[str, Path],
        artifacts: Mapping[str, Artifact],
        part: dict[str, Any],
        load: StageLoader,
        resuming: bool,
    ) -> StageRecord:
        started, clock = datetime.now(UTC), time.monotonic()
        metrics_log = MetricsLog(self.directory.partial_metrics(self.stage), resume=resuming)
        trackers = self._trackers(part)
        monitor = MultiMonitor([metrics_log, self.monitor, trackers])
        partial = self.directory.partial(self.stage)
        try:
            outcome = self._together(inputs, load, monitor)
        except BaseException as error:
            self._keep_or_discard(partial, asked_to_end=not isinstance(error, Exception))
            raise
        finally:
            trackers.close()
        staging.promote(self.directory, self.stage)
        record = StageRecord(
            stage=self.stage,
            recipe_part=part,
            inputs=dict(artifacts),
            outputs=self._artifacts({self.stage: self.directory.stage(self.stage)}),
            metrics=self._finite(outcome.metrics),
            versions=installed_versions(),
            seed=self.recipe.seed,
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - clock, 3),
        )
        self.manifest.with_stage(record).save(self.directory.manifest)
        self.directory.partial_metrics(self.stage).replace(self.directory.metrics(self.stage))
        staging.clean_up(self.directory, self.stage)
        return record

    def _together(
        self, inputs: Mapping[str, Path], load: StageLoader, monitor: Monitor
    ) -> StageOutcome:
        """Do the stage with all processes."""
        partial = self.directory.partial(self.stage)
        if self.stage in _OF_PROCESS_0:
            return load(self.stage)(self._view(), inputs, partial, monitor)
        self.group.order(
            {
                "stage": self.stage,
                "recipe": self.recipe.model_dump_json(),
                "inputs": {name: str(path.absolute()) for name, path in inputs.items()},
                "output": str(partial.absolute()),
                "logs": str(self.directory.logs.absolute()),
            }
        )
        outcome = load(self.stage)(self._view(), inputs, partial, monitor)
        self.group.await_others()
        return outcome

    def _view(self) -> Recipe:
        return view(self.recipe, stage_named(self.stage))

    def _trackers(self, part: Mapping[str, Any]) -> TrackerMonitor:
        settings = {
            f"{section}.{key}": value
            for section, values in part.items()
            if isinstance(values, dict)
            for key, value in values.items()
        }
        return TrackerMonitor(
            self.recipe.tracking.report_to,
            f"{self.directory.name}-{self.stage}",
            self.directory.logs,
            settings,
            self.monitor,
        )

    def _keep_or_discard(self, partial: Path, *, asked_to_end: bool) -> None:
        if staging.has_checkpoints(partial):
            self.monitor.note(
                f"a checkpoint of {self.stage} is kept; the same command goes on from it"
            )
        else:
            if asked_to_end:
                self.monitor.note(f"no checkpoint of {self.stage} had been saved; it starts anew")
            staging.discard_partial(self.directory, self.stage)
            recorded = self.stage in self.manifest.stages
            place = self.directory.failed_metrics if recorded else self.directory.metrics
            self.directory.partial_metrics(self.stage).replace(place(self.stage))

    def _checkpoints(self) -> dict[str, Path]:
        """Find the checkpoints the stage reads: those the recipe names, else the run's own."""
        external = external_checkpoints(self.recipe, self.stage)
        found: dict[str, Path] = {}
        for name in _takes(self.recipe, self.stage):
            if name in external:
                found[name] = self._external(name, external[name])
            elif name in self.manifest.stages:
                found[name] = self._own(name, self.manifest.stages[name])
            elif name in _NEEDS[self.stage]:
                raise CheckpointError(
                    f"{self.stage} needs {_TITLES[name]}, and this run has none",
                    where=str(self.directory.root),
                    hint=f"make it with `rlhfctl {COMMANDS[name]} --run {self.directory.name}`, "
                    f"or name one with --{name} PATH",
                )
        return found

    def _external(self, name: str, text: str) -> Path:
        path = Path(text).expanduser()
        if not path.is_dir():
            raise CheckpointError(
                f"{self.stage} should use {_TITLES[name]} from here, but there is no such folder",
                where=text,
                hint="name a local checkpoint folder, or set the key to null to use the run's own",
            )
        return path

    def _own(self, name: str, record: StageRecord) -> Path:
        """Return the run's own checkpoint; it must be what its stage wrote."""
        damage = output_changes(record, self.directory)
        command = f"`rlhfctl {COMMANDS[name]} --run {self.directory.name}`"
        if damage:
            raise CheckpointError(
                f"{self.stage} needs {_TITLES[name]}, but {damage[0].removeprefix('its output ')}",
                where=str(self.directory.stage(name)),
                hint=f"make it again with {command}, or name another with --{name} PATH",
            )
        stale = recipe_changes(record.recipe_part, stage_part(self.recipe, stage_named(name)))
        stale += [f"made from an earlier {earlier}" for earlier in self._outdated(record)]
        if stale:
            self.monitor.warn(f"{name} is out of date ({'; '.join(stale)}); {command} renews it")
        return self.directory.stage(name)

    def _outdated(self, record: StageRecord) -> list[str]:
        """Name the stages of this run that were done again after a stage had read their result."""
        names = []
        for name, used in record.inputs.items():
            now = self.manifest.stages.get(name)
            if now and used.path == now.outputs[name].path and used != now.outputs[name]:
                names.append(name)
        return names

    def _sources(self) -> dict[str, Path]:
        """Return the local files that the recipe names and the stage's result depends on."""
        recipe, part = self.recipe, stage_part(self.recipe, stage_named(self.stage))
        named: dict[str, str | None] = {
            "model.name_or_path": recipe.model.name_or_path,
            "model.chat_template": recipe.model.chat_template,
        }
        if "init_from" in part.get("sft", {}):
            named["sft.init_from"] = recipe.sft.init_from
        if "judge_rm" in part.get("evaluation", {}):
            named["evaluation.judge_rm"] = recipe.evaluation.judge_rm
        if "judge_function" in part.get("evaluation", {}):
            judged, judge = recipe.evaluation, recipe.evaluation.judge_function
            named["evaluation.judge_function"] = source_file(judge) if judge else None
            named["evaluation.reward_bench"] = judged.reward_bench
            named |= {f"evaluation.tax.tasks: {task}": task for task in judged.tax.tasks}
        if "reward_sources" in part.get("ppo", {}):
            for source in recipe.ppo.reward_sources:
                named[f"ppo.reward_sources: {source.source}"] = source_file(source.source)
        for kind, section in part["data"].items():
            if isinstance(section, dict) and "source" in section:
                named[f"data.{kind}.source"] = section["source"]
        found = {
            key: path
            for key, text in named.items()
            if text is not None and (path := Path(text).expanduser()).exists()
        }
        if recipe.model.name_or_path == "embedded":
            # by its weights, since a new release of rlhfctl may bring others
            found["model.name_or_path"] = Path(rlhfctl.__file__).parent / "world" / "assets"
        return found

    def _artifacts(self, paths: Mapping[str, Path]) -> dict[str, Artifact]:
        try:
            return {name: Artifact.of(path, self.directory.root) for name, path in paths.items()}
        except OSError as error:
            raise CheckpointError(
                f"cannot be read: {error.strerror}", where=str(error.filename)
            ) from error

    def _finite(self, value: Any, name: str = "") -> Any:
        """Replace metrics that JSON has no word for by null, and say so."""
        if isinstance(value, Mapping):
            return {key: self._finite(item, f"{name}.{key}") for key, item in value.items()}
        if isinstance(value, float) and not math.isfinite(value):
            self.monitor.warn(f"{self.stage}: the figure {name.removeprefix('.')} is {value}")
            return None
        return value


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into `Terminated`, so that locks and partial folders are seen to."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(_number: int, _frame: object) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
