"""Stages that write what they were made from, in place of the real ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rlhfctl.recipe.schema import Recipe
from rlhfctl.run.manifest import StageOutcome
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stage_table import STAGE_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rlhfctl.pipeline.processes import StageFunction
    from rlhfctl.run.directory import RunDirectory
    from rlhfctl.run.monitor import Monitor
    from rlhfctl.stage_table import Stage

ALL = list(STAGE_NAMES)


class Listener(NullMonitor):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


class Stages:
    """Small stages: each writes what it was made from, and reports one step."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.inputs: dict[str, dict[str, Path]] = {}
        self.during: dict[str, Callable[[Recipe, Path], dict[str, Any] | None]] = {}

    def __call__(self, stage: Stage) -> StageFunction:
        name = stage.name

        def run(
            recipe: Recipe, inputs: Mapping[str, Path], output: Path, monitor: Monitor
        ) -> StageOutcome:
            self.ran.append(name)
            self.inputs[name] = dict(inputs)
            monitor.start(name, 1, "steps")
            monitor.step(1, {"loss": 1.0})
            made_from = {key: (path / "weights").read_text() for key, path in inputs.items()}
            part = recipe.model_dump(mode="json")[
                {"rm": "reward_model", "eval": "evaluation"}.get(name, name)
            ]
            (output / "weights").write_text(json.dumps([name, recipe.seed, part, made_from]))
            metrics: dict[str, Any] = {"figure": 0.5}
            if name in self.during:
                metrics |= self.during[name](recipe, output) or {}
            monitor.finish()
            return StageOutcome(metrics)

        return run


def recipe(changes: Mapping[str, Any] | None = None) -> Recipe:
    values: dict[str, Any] = {"name": "one", "model": {"name_or_path": "org/model"}}
    for key, value in (changes or {}).items():
        section = values
        *above, last = key.split(".")
        for name in above:
            section = section.setdefault(name, {})
        section[last] = value
    return Recipe.model_validate(values)


def weights(directory: RunDirectory, stage: str) -> str:
    return (directory.stage(stage) / "weights").read_text()
