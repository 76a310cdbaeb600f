"""The checkpoints of a finished run, with the recipe that each was made by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from rlhfctl.errors import CheckpointError
from rlhfctl.recipe.load import load_recipe
from rlhfctl.recipe.schema import Recipe
from rlhfctl.run.directory import BEST_FOLDER, RunDirectory
from rlhfctl.run.manifest import Manifest
from rlhfctl.run.staleness import output_changes
from rlhfctl.stage_table import DPO, PPO, REWARD_MODEL, SFT, stage_named

if TYPE_CHECKING:
    from pathlib import Path

    from rlhfctl.run.manifest import StageRecord

WITH_MODELS = (SFT, REWARD_MODEL, DPO, PPO)
"""The stages whose results are models."""
_FROM_RECORD = ("seed", "model", "lora")
"""Sections that a checkpoint is loaded by; the run's recipe may have changed since."""


@dataclass(frozen=True)
class FinishedRun:
    """A run folder whose stages are recorded in its manifest.

    Attributes:
        directory: The run folder.
        recipe: The recipe on disk.
        manifest: The finished stages.
    """

    directory: RunDirectory
    recipe: Recipe
    manifest: Manifest

    @classmethod
    def open(cls, root: Path) -> FinishedRun:
        """Read the recipe and the manifest of a run folder.

        Raises:
            UsageError: There is no recipe.
            RecipeError: The recipe is invalid.
            CheckpointError: The manifest is damaged.
        """
        directory = RunDirectory(root)
        recipe = load_recipe(directory.recipe).recipe
        return cls(directory, recipe, Manifest.load(directory.manifest))

    @property
    def stages(self) -> list[str]:
        """Names of the finished stages that have a model, in the order of a run."""
        return [stage.name for stage in WITH_MODELS if stage.name in self.manifest.stages]

    def record(self, stage: str) -> StageRecord:
        """Return the record of a stage.

        Raises:
            CheckpointError: The stage is not finished.
        """
        record = self.manifest.stages.get(stage)
        if record is None:
            row = stage_named(stage)
            finished = ", ".join(self.stages) or "none"
            raise CheckpointError(
                f"this run has no {row.product.removeprefix('a ').removeprefix('an ')}; "
                f"finished stages with a model: {finished}",
                str(self.directory.root),
                f"run rlhfctl {row.command} first, or name a finished stage with --stage",
            )
        return record

    def checkpoint(self, stage: str, *, best: bool = False) -> Path:
        """Return the folder of a stage's model, as the manifest records it.

        Args:
            stage: sft, rm, dpo or ppo.
            best: PPO's policy with the highest true reward on held-out prompts.

        Raises:
            CheckpointError: The stage is not finished, its result was changed since, or it has no
                best policy.
        """
        record = self.record(stage)
        changes = output_changes(record, self.directory)
        if changes:
            raise CheckpointError(
                f"the result of {stage} is not the one that was recorded: {'; '.join(changes)}",
                str(self.directory.root),
                f"restore it from a copy, or run rlhfctl {stage_named(stage).command} again",
            )
        folder = self.directory.root / record.outputs[stage].path
        if not best:
            return folder
        if stage != PPO.name or not (folder / BEST_FOLDER).is_dir():
            raise CheckpointError(
                f"{stage} has no best checkpoint",
                str(folder),
                "only PPO with held-out evaluations (ppo.eval_rollouts) saves one; leave out --best",
            )
        return folder / BEST_FOLDER

    def recipe_of(self, stage: str) -> Recipe:
        """Return the recipe with the seed, model and adapters that a stage was made with.

        Args:
            stage: sft, rm, dpo or ppo; its record counts, where the file has changed since.

        Raises:
            CheckpointError: The record is of another version of rlhfctl.
        """
        part = self.record(stage).recipe_part
        values = self.recipe.model_dump(mode="json")
        values |= {key: part[key] for key in _FROM_RECORD if key in part}
        values["generation"] |= part.get("generation") or {}
        try:
            return Recipe.model_validate(values)
        except ValidationError as error:
            raise CheckpointError(
                f"the record of {stage} does not fit this version of rlhfctl: "
                f"{error.errors()[0]['msg']}",
                str(self.directory.manifest),
                "use the version that made the run, or make the stage again",
            ) from error
