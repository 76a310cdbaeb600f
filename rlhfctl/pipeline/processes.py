"""A stage's work in this process and its peers."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl import activity
from rlhfctl.recipe.schema import Recipe
from rlhfctl.recipe.view import view
from rlhfctl.run import stop
from rlhfctl.run.log_capture import capture_logs
from rlhfctl.run.manifest import StageOutcome
from rlhfctl.run.monitor import Monitor, NullMonitor
from rlhfctl.stage_table import Stage, stage_named

if TYPE_CHECKING:
    from rlhfctl.run.directory import RunDirectory
    from rlhfctl.run.process_group import ProcessGroup

StageFunction = Callable[[Recipe, Mapping[str, Path], Path, Monitor], StageOutcome]
StageLoader = Callable[[Stage], StageFunction]

_log = logging.getLogger("rlhfctl")


def load_stage(stage: Stage) -> StageFunction:
    """Import a stage's module, and with it torch and the libraries, only when it starts."""
    activity.publish("importing libraries")
    module = importlib.import_module(f"rlhfctl.stages.{stage.module}.stage")
    activity.clear()
    function: StageFunction = module.run
    return function


def run_in_all_processes(
    recipe: Recipe,
    directory: RunDirectory,
    stage: Stage,
    checkpoints: Mapping[str, Path],
    monitor: Monitor,
    group: ProcessGroup,
    load: StageLoader,
) -> StageOutcome:
    """Run a stage here, in process 0, and in the other processes unless it is for process 0 only.

    The stage receives a view of the recipe and works in the run's partial folder.
    """
    partial = directory.partial(stage.name)
    if not stage.main_process_only:
        group.broadcast(
            {
                "stage": stage.name,
                "recipe": recipe.model_dump_json(),
                "inputs": {name: str(path.absolute()) for name, path in checkpoints.items()},
                "output": str(partial.absolute()),
                "logs": str(directory.logs.absolute()),
            }
        )
    outcome = load(stage)(view(recipe, stage), checkpoints, partial, monitor)
    if not stage.main_process_only:
        with stop.deferred(monitor.note):
            group.await_others()
    return outcome


def worker_loop(group: ProcessGroup, load: StageLoader = load_stage) -> None:
    """Run the stages that process 0 broadcasts, until it shuts the group down.

    Only process 0 writes results and reports progress; a stage in a worker has a `NullMonitor`.

    Raises:
        RlhfctlError: A stage failed, in this process or another.
        Stopped: This process received a signal to stop.
    """
    with stop.handled():
        group.join()
        for instruction in group.instructions():
            stage = stage_named(instruction["stage"])
            recipe = view(Recipe.model_validate_json(instruction["recipe"]), stage)
            checkpoints = {name: Path(path) for name, path in instruction["inputs"].items()}
            log = Path(instruction["logs"]) / f"rank-{group.rank}.log"
            with capture_logs(log, f"process {group.rank}: {stage.name}"):
                try:
                    load(stage)(recipe, checkpoints, Path(instruction["output"]), NullMonitor())
                except BaseException as error:
                    if isinstance(error, stop.Stopped):
                        stop.begin(error.number)
                    _log.exception("%s ended early", stage.name)
                    raise
            group.finished()
            stop.check()
