"""Stage functions by name, and the loop of the processes that assist process 0."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.pipeline.termination import terminable
from rlhfctl.recipe.schema import Recipe
from rlhfctl.recipe.view import view
from rlhfctl.run.log_capture import capture_logs
from rlhfctl.run.manifest import StageOutcome
from rlhfctl.run.monitor import Monitor, NullMonitor
from rlhfctl.stage_table import stage_named

if TYPE_CHECKING:
    from rlhfctl.run.process_group import ProcessGroup

StageFunction = Callable[[Recipe, Mapping[str, Path], Path, Monitor], StageOutcome]
StageLoader = Callable[[str], StageFunction]

_log = logging.getLogger("rlhfctl")


def load_stage(name: str) -> StageFunction:
    """Import a stage's module, which loads torch, and return its `run` function."""
    module = importlib.import_module(f"rlhfctl.stages.{stage_named(name).module}.stage")
    function: StageFunction = module.run
    return function


def worker_loop(group: ProcessGroup, load: StageLoader = load_stage) -> None:
    """Run the stages that process 0 broadcasts, until it shuts the group down.

    Only process 0 writes results and reports progress.

    Raises:
        RlhfctlError: A stage failed, here or in another process.
        Terminated: SIGTERM was received.
    """
    with terminable():
        group.join()
        for instruction in group.instructions():
            stage = stage_named(instruction["stage"])
            recipe = view(Recipe.model_validate_json(instruction["recipe"]), stage)
            inputs = {name: Path(path) for name, path in instruction["inputs"].items()}
            log = Path(instruction["logs"]) / f"rank-{group.rank}.log"
            with capture_logs(log, f"process {group.rank}: {stage.name}"):
                try:
                    load(stage.name)(recipe, inputs, Path(instruction["output"]), NullMonitor())
                except BaseException:
                    _log.exception("%s ended early", stage.name)
                    raise
            group.finished()
