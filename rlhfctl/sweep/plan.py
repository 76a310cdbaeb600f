"""Runs of a sweep, with stages shared between points.

A point's SFT checkpoint and reward model rarely depend on the swept keys. Each has a run of its
own, named by a digest of all it depends on; points refer to it by `ppo.sft` and `ppo.rm`.
A larger sweep reuses these runs.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import UsageError
from rlhfctl.pipeline import needed_stages
from rlhfctl.recipe.keys import split_key
from rlhfctl.recipe.load import Override, load_recipe
from rlhfctl.recipe.view import stage_part
from rlhfctl.stage_table import EVALUATION, PPO, REWARD_MODEL, SFT
from rlhfctl.sweep.grid import names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.results.json_value import JsonValue
    from rlhfctl.stage_table import Stage

_LABEL = "the sweep"


@dataclass(frozen=True)
class _SharedStage:
    """A stage that points can share, and the recipe keys that name its checkpoint."""

    stage: Stage
    checkpoint_keys: tuple[str, ...]


_SHARED_STAGES = (
    _SharedStage(SFT, ("reward_model.sft", "ppo.sft", "dpo.sft")),
    _SharedStage(REWARD_MODEL, ("ppo.rm",)),
)


@dataclass(frozen=True)
class Job:
    """One command in a run folder of its own.

    Attributes:
        name: Name of the run folder within the sweep's folder.
        command: Name of the command.
        stages: Stages that it runs.
        recipe: Recipe of the command.
        needs: Names of the jobs it depends on.
    """

    name: str
    command: str
    stages: tuple[str, ...]
    recipe: Recipe
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """One setting of the sweep: the values of its keys, and its run."""

    settings: dict[str, JsonValue]
    job: Job


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep: shared runs are in dependency order."""

    points: tuple[Point, ...]
    shared: tuple[Job, ...]

    def sharers(self, job: Job) -> list[int]:
        """Return the indices of the points that need a shared run."""
        return [index for index, point in enumerate(self.points) if job.name in point.job.needs]


def make_plan(
    recipe: Path,
    overrides: Sequence[str | Override],
    texts: Sequence[Mapping[str, str]],
    root: Path,
) -> Plan:
    """Read the recipe at every point and determine the shared runs.

    Args:
        recipe: Recipe file.
        overrides: Overrides common to all points.
        texts: The points' own settings.
        root: The sweep's folder.

    Raises:
        RecipeError: The recipe is invalid at some point.
        UsageError: Two points are equal, or no point trains a policy.
    """
    shared: dict[str, Job] = {}
    points: list[Point] = []
    seen: dict[str, str] = {}
    for name, settings in zip(names(texts), texts, strict=True):
        reader = PointReader(
            recipe, (*overrides, *(Override(*item) for item in settings.items())), root, shared
        )
        plain = reader.read(name)
        if PPO.name not in needed_stages(plain):
            raise UsageError(
                "evaluation.ppo names a policy, so no point would train one", str(recipe)
            )
        twin = seen.setdefault(json.dumps(plain.model_dump(mode="json") | {"name": ""}), name)
        if twin != name or name in {point.job.name for point in points}:
            raise UsageError(f"two points of the sweep are the same: {twin} and {name}", "--set")
        points.append(Point(_values(plain, settings), reader.job(name, plain)))
    return Plan(tuple(points), tuple(shared.values()))


@dataclass(frozen=True)
class PointReader:
    """Reads the recipe of one point.

    Attributes:
        path: Recipe file.
        overrides: Overrides of the point.
        root: Folder of the runs.
        shared: Shared runs by name; those of the point are added.
    """

    path: Path
    overrides: tuple[str | Override, ...]
    root: Path
    shared: dict[str, Job]

    def read(self, name: str, extra: Sequence[Override] = ()) -> Recipe:
        """Return the recipe under a run's name, with more overrides."""
        overrides = [*self.overrides, *extra, Override("name", name, _LABEL)]
        return load_recipe(self.path, overrides).recipe

    def job(self, name: str, plain: Recipe) -> Job:
        """Return the point's job; add its shared jobs to `shared`."""
        checkpoints, needs = self.shared_checkpoints(plain)
        if plain.evaluation.best_of_n:
            needs.append(self.best_of_n(plain, checkpoints, needs))
            checkpoints.append(Override("evaluation.best_of_n", "0", _LABEL))
        recipe = self.read(name, checkpoints)
        return Job(name, "run", tuple(needed_stages(recipe)), recipe, tuple(needs))

    def shared_checkpoints(self, plain: Recipe) -> tuple[list[Override], list[str]]:
        """Return the keys that name the shared checkpoints, and their runs; adds these."""
        checkpoints: list[Override] = []
        needs: list[str] = []
        for shareable in _SHARED_STAGES:
            stage = shareable.stage
            if stage.name not in needed_stages(plain):
                continue
            part = stage_part(plain, stage)
            run_name = self._share(stage.name, stage, part, checkpoints, needs)
            folder = str((self.root / run_name / stage.folder).absolute())
            checkpoints += [Override(key, folder, _LABEL) for key in shareable.checkpoint_keys]
            needs.append(run_name)
        return checkpoints, needs

    def best_of_n(
        self, plain: Recipe, checkpoints: Sequence[Override], needs: Sequence[str]
    ) -> str:
        """Add the run that evaluates best-of-n from shared checkpoints, and return its name."""
        part = stage_part(plain, EVALUATION)
        return self._share("best-of-n", EVALUATION, part, checkpoints, needs)

    def _share(
        self,
        kind: str,
        stage: Stage,
        part: Mapping[str, JsonValue],
        overrides: Sequence[Override],
        needs: Sequence[str],
    ) -> str:
        basis = json.dumps([part, list(needs)], sort_keys=True)
        name = f"shared-{kind}-{hashlib.sha256(basis.encode()).hexdigest()[:8]}"
        if name not in self.shared:
            recipe = self.read(name, overrides)
            self.shared[name] = Job(name, stage.command, (stage.name,), recipe, tuple(needs))
        return name


def _values(recipe: Recipe, settings: Mapping[str, str]) -> dict[str, JsonValue]:
    """Return the settings as typed values of the recipe."""
    values: dict[str, JsonValue] = {}
    for key in settings:
        value: Any = recipe.model_dump(mode="json")
        for part in split_key(key):
            value = value[part]
        values[key] = value
    return values
