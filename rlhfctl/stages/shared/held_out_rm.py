"""Held-out reward model: never used by PPO, only to evaluate its policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.errors import CheckpointError
from rlhfctl.models.foreign_files import is_foreign
from rlhfctl.models.foreign_scorer import ForeignScorer
from rlhfctl.run.directory import HELD_OUT_RM_FOLDER
from rlhfctl.stages.shared.foreign_rewards import ForeignSource
from rlhfctl.stages.shared.reward_sources import ModelSource, extra_reward_models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlhfctl.data.formatting import Formatter
    from rlhfctl.models.roles import Roles
    from rlhfctl.ppo.rewards import RewardSource
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor
    from rlhfctl.stages.shared.prompt_rows import PromptRows

_KEY = "evaluation.judge_rm"
SEED_OFFSET = 7919
"""Offset of its seed from the recipe's."""


def held_out_rm_folder(recipe: Recipe, inputs: Mapping[str, Path]) -> Path | None:
    """Return the folder of the held-out reward model, or None; None for one from elsewhere.

    Args:
        recipe: Recipe; `evaluation.judge_rm` takes precedence.
        inputs: Inputs of the stage; `rm` may contain a held-out reward model.

    Raises:
        CheckpointError: The recipe names a folder that does not exist.
    """
    configured = recipe.evaluation.judge_rm
    if configured is not None:
        if is_foreign(configured):
            return None
        folder = Path(configured).expanduser()
        if not folder.is_dir():
            raise CheckpointError(
                "the folder of the held-out reward model does not exist",
                f"{_KEY}: {configured}",
                "Name a folder of a reward model or hub:ID, or remove the key.",
            )
        return folder
    if "rm" in inputs and (inputs["rm"] / HELD_OUT_RM_FOLDER).is_dir():
        return inputs["rm"] / HELD_OUT_RM_FOLDER
    return None


def has_held_out_rm(recipe: Recipe, inputs: Mapping[str, Path]) -> bool:
    """Return whether there is a held-out reward model; raises as `held_out_rm_folder`."""
    return _is_foreign_judge(recipe) or held_out_rm_folder(recipe, inputs) is not None


def load_foreign_judge(recipe: Recipe, rows: PromptRows) -> ForeignScorer | None:
    """Load the reward model from elsewhere that `evaluation.judge_rm` names; None without one.

    Args:
        recipe: Recipe.
        rows: Prompts that it will be given.

    Raises:
        CheckpointError: It is no sequence classifier with one output, lacks files, or has no chat
            template for conversations.
        EnvironmentFault: It cannot be downloaded or loaded.
        RecipeError: The chat template cannot be read, or is needed and missing.
        UnsafeError: It needs its own code, or has weights in pickle files only.
    """
    evaluation = recipe.evaluation
    if evaluation.judge_rm is None or not _is_foreign_judge(recipe):
        return None
    scorer = ForeignScorer.load(evaluation.judge_rm, evaluation.judge_rm_loading, _KEY)
    scorer.inputs.check(rows.prompts[0])
    return scorer


def held_out_rm_source(
    recipe: Recipe,
    inputs: Mapping[str, Path],
    roles: Roles,
    foreign: ForeignScorer | None,
    formatter: Formatter,
    rows: PromptRows,
) -> RewardSource | None:
    """Return the held-out reward model for one set of prompts, or None.

    Args:
        recipe: Recipe.
        inputs: Inputs of the stage that the roles' reward models were loaded from.
        roles: Roles; the held-out reward model comes after all reward sources.
        foreign: Result of `load_foreign_judge`.
        formatter: Decodes responses to text.
        rows: Prompts.
    """
    if foreign is not None:
        return ForeignSource("held_out_rm", foreign, formatter, rows)
    if held_out_rm_folder(recipe, inputs) is None:
        return None
    index = int("rm" in inputs) + len(extra_reward_models(recipe.ppo))
    return ModelSource("held_out_rm", roles, index)


def _is_foreign_judge(recipe: Recipe) -> bool:
    judge = recipe.evaluation.judge_rm
    return judge is not None and is_foreign(judge)


class HeldOutRMMonitor:
    """Reports the held-out reward model's training as a continuation of the main model's."""

    def __init__(self, monitor: Monitor, after: int) -> None:
        """Store the monitor and the number of steps of the main model's training."""
        self._monitor = monitor
        self._after = after
        self._offset = 0

    def begin(self, heading: str) -> None:
        """Pass on the beginning of a stage."""
        self._monitor.begin(heading)

    def start(self, stage: str, total: int, unit: str) -> None:
        """Start a phase; training steps continue those of the main model."""
        self._offset = self._after if unit == "steps" else 0
        self._monitor.start(f"{stage} judge", self._offset + total, unit)

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Report a step, with prefixed metric names."""
        prefixed = {f"{HELD_OUT_RM_FOLDER}_{name}": value for name, value in metrics.items()}
        self._monitor.step(self._offset + done, prefixed)

    def note(self, message: str) -> None:
        """Pass on a note."""
        self._monitor.note(message)

    def warn(self, message: str) -> None:
        """Pass on a warning."""
        self._monitor.warn(message)

    def finish(self) -> None:
        """End the phase."""
        self._monitor.finish()
