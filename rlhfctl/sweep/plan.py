"""The runs that a sweep takes: what several points have in common is done once.

A point's policy depends on its SFT checkpoint and reward model, which mostly do not depend on what
is swept. So each of those has a run of its own, named by a digest of all that it depends on, and
the points name it by `ppo.sft` and `ppo.rm`. A sweep that grows finds them again.
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
from rlhfctl.stage_table import EVALUATION, stage_named
from rlhfctl.sweep.grid import names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rlhfctl.recipe.schema import Recipe

_CHECKPOINT_KEYS = {"sft": ("reward_model.sft", "ppo.sft"), "rm": ("ppo.rm",)}
_LABEL = "the sweep"


@dataclass(frozen=True)
class Job:
    """One command in a run folder of its own.

    Attributes:
        name: The folder's, within the sweep's.
        command: The command's.
        stages: What it does.
        recipe: As the command gets it.
        needs: Names of the jobs whose results it reads.
    """

    name: str
    command: str
    stages: tuple[str, ...]
    recipe: Recipe
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """One setting of the sweep: the values of its keys, and the run that tries it."""

    settings: dict[str, Any]
    job: Job


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep: the shared ones in the order in which they need one another."""

    points: tuple[Point, ...]
    shared: tuple[Job, ...]

    def sharers(self, job: Job) -> list[int]:
        """Return the numbers of the points that need a shared run."""
        return [at for at, point in enumerate(self.points) if job.name in point.job.needs]


def make_plan(
    recipe: Path,
    overrides: Sequence[str | Override],
    texts: Sequence[Mapping[str, str]],
    root: Path,
) -> Plan:
    """Read the recipe at every point, and find out what the points share.

    Args:
        recipe: The file.
        overrides: What holds for all points.
        texts: The points' own settings.
        root: The sweep's folder.

    Raises:
        RecipeError: The recipe is wrong at some point.
        UsageError: Two points are one, or the recipe leaves nothing to train.
    """
    shared: dict[str, Job] = {}
    points: list[Point] = []
    seen: dict[str, str] = {}
    for name, settings in zip(names(texts), texts, strict=True):
        reader = _Reader(
            recipe, (*overrides, *(Override(*item) for item in settings.items())), root, shared
        )
        plain = reader.read(name)
        if "ppo" not in needed_stages(plain):
            raise UsageError(
                "evaluation.ppo names a policy, so no point would train one", str(recipe)
            )
        twin = seen.setdefault(json.dumps(plain.model_dump(mode="json") | {"name": ""}), name)
        if twin != name or name in {point.job.name for point in points}:
            raise UsageError(f"two points of the sweep are the same: {twin} and {name}", "--set")
        points.append(Point(_values(plain, settings), reader.job(name, plain)))
    return Plan(tuple(points), tuple(shared.values()))


@dataclass(frozen=True)
class _Reader:
    """Reads the recipe of one point."""

    path: Path
    overrides: tuple[str | Override, ...]
    root: Path
    shared: dict[str, Job]

    def read(self, name: str, given: Sequence[Override] = ()) -> Recipe:
        own = [*self.overrides, *given, Override("name", name, _LABEL)]
        return load_recipe(self.path, own).recipe

    def job(self, name: str, plain: Recipe) -> Job:
        """Return the point's job; what it shares is among the shared jobs afterwards."""
        given: list[Override] = []
        needs: list[str] = []
        for stage in ("sft", "rm"):
            if stage not in needed_stages(plain):
                continue
            part = stage_part(plain, stage_named(stage))
            made = self._share(stage, stage_named(stage).command, stage, part, given, needs)
            folder = str((self.root / made / stage).absolute())
            given += [Override(key, folder, _LABEL) for key in _CHECKPOINT_KEYS[stage]]
            needs.append(made)
        if plain.evaluation.best_of_n:
            part = stage_part(plain, EVALUATION)
            needs.append(self._share("best-of-n", "eval", "eval", part, given, needs))
            given.append(Override("evaluation.best_of_n", "0", _LABEL))
        recipe = self.read(name, given)
        return Job(name, "run", tuple(needed_stages(recipe)), recipe, tuple(needs))

    def _share(
        self,
        kind: str,
        command: str,
        stage: str,
        part: Mapping[str, Any],
        given: Sequence[Override],
        needs: Sequence[str],
    ) -> str:
        basis = json.dumps([part, list(needs)], sort_keys=True)
        name = f"shared-{kind}-{hashlib.sha256(basis.encode()).hexdigest()[:8]}"
        if name not in self.shared:
            self.shared[name] = Job(name, command, (stage,), self.read(name, given), tuple(needs))
        return name


def _values(recipe: Recipe, settings: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings as the recipe has them: typed."""
    found: dict[str, Any] = {}
    for key in settings:
        value: Any = recipe.model_dump(mode="json")
        for part in split_key(key):
            value = value[part]
        found[key] = value
    return found
