"""The stages to run, their inputs, and why a recorded result is out of date."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.pipeline.inputs import (
    accepted_stages,
    artifacts_of,
    external_checkpoints,
    find_checkpoints,
    local_files,
)
from rlhfctl.recipe.view import default_part, stage_part
from rlhfctl.run.manifest import Manifest
from rlhfctl.run.staleness import staleness
from rlhfctl.stage_table import EVALUATION, STAGES, stage_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.directory import RunDirectory
    from rlhfctl.run.manifest import Artifact, StageRecord
    from rlhfctl.stage_table import Stage


@dataclass(frozen=True)
class StagePlan:
    """Inputs of one stage, and the reasons why its record is stale.

    Attributes:
        stage: The stage.
        checkpoints: Name of an earlier stage -> the checkpoint to read.
        inputs: Digests of the checkpoints and of the local files that the recipe names.
        recipe_part: Values of the recipe keys that the stage reads.
        defaults: Their defaults.
        record: Record of the finished stage; None when it has not finished yet.
        reasons: Why the record is stale; empty when it is not or when there is none.
    """

    stage: Stage
    checkpoints: dict[str, Path]
    inputs: dict[str, Artifact]
    recipe_part: dict[str, Any]
    defaults: dict[str, Any]
    record: StageRecord | None
    reasons: tuple[str, ...]

    @property
    def is_up_to_date(self) -> bool:
        """True if the stage has finished and none of its inputs has changed."""
        return self.record is not None and not self.reasons


def plan_stage(
    recipe: Recipe, directory: RunDirectory, stage: Stage, manifest: Manifest
) -> StagePlan:
    """Find a stage's inputs and compare them with those of its record.

    Raises:
        CheckpointError: An input is missing, modified, or cannot be read.
    """
    checkpoints = find_checkpoints(recipe, directory, stage, manifest)
    inputs = artifacts_of({**checkpoints, **local_files(recipe, stage)}, directory.root)
    part = stage_part(recipe, stage)
    record = manifest.stages.get(stage.name)
    defaults = default_part(stage)
    reasons = [] if record is None else staleness(record, part, inputs, directory, defaults)
    return StagePlan(stage, checkpoints, inputs, part, defaults, record, tuple(reasons))


def needed_stages(recipe: Recipe) -> list[str]:
    """Return the names of the stages that `rlhfctl run` runs, in order.

    A stage is left out where the recipe replaces its result or no later stage reads it.
    """
    needed = {EVALUATION}
    for stage in reversed(STAGES):
        if stage in needed:
            external = external_checkpoints(recipe, stage)
            needed |= {
                other for other in accepted_stages(recipe, stage) if other.name not in external
            }
    return [stage.name for stage in STAGES if stage in needed]


def is_up_to_date(recipe: Recipe, directory: RunDirectory, stages: Sequence[str]) -> bool:
    """Return whether every stage has finished and is up to date, so that none would run.

    Raises:
        CheckpointError: The manifest, or a file that the recipe names, cannot be read.
    """
    manifest = Manifest.load(directory.manifest)
    for stage in map(stage_named, stages):
        external = external_checkpoints(recipe, stage).values()
        if stage.name not in manifest.stages or not all(
            Path(path).expanduser().is_dir() for path in external
        ):
            return False
        if not plan_stage(recipe, directory, stage, manifest).is_up_to_date:
            return False
    return True
