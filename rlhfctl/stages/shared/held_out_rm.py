"""A reward model that PPO never sees, by which its policy can be judged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.errors import CheckpointError
from rlhfctl.run.directory import HELD_OUT_RM_FOLDER
from rlhfctl.stages.shared.reward_sources import extra_reward_models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor

SEED_OFFSET = 7919
"""What its seed lies above the recipe's."""


def held_out_rm_folder(recipe: Recipe, inputs: Mapping[str, Path]) -> Path | None:
    """Return the folder of the reward model to judge by, or None where there is none.

    Args:
        recipe: May name one.
        inputs: The stage's; `rm` may hold one.

    Raises:
        CheckpointError: The recipe names a folder that is not there.
    """
    named = recipe.evaluation.judge_rm
    if named is not None:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise CheckpointError(
                "a reward model to judge by should be here, but there is no such folder",
                f"evaluation.judge_rm: {named}",
                "Name a folder that train-rm wrote, or leave the key out.",
            )
        return folder
    if "rm" in inputs and (inputs["rm"] / HELD_OUT_RM_FOLDER).is_dir():
        return inputs["rm"] / HELD_OUT_RM_FOLDER
    return None


def held_out_rm_index(recipe: Recipe, inputs: Mapping[str, Path]) -> int | None:
    """Return its number among the roles' reward models: the one after all that give scores."""
    if held_out_rm_folder(recipe, inputs) is None:
        return None
    return int("rm" in inputs) + len(extra_reward_models(recipe.ppo))


class HeldOutRMMonitor:
    """Tells a monitor of the judge's training as what comes after the main model's."""

    def __init__(self, monitor: Monitor, after: int) -> None:
        """Take the monitor, and the steps that the main model's training took."""
        self._monitor = monitor
        self._after = after

    def start(self, stage: str, total: int, unit: str) -> None:
        """Begin the phase, its steps counted on from the main model's."""
        self._monitor.start(f"{stage} judge", self._after + total, unit)

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Report a step under names of its own, beside the main model's."""
        named = {f"{HELD_OUT_RM_FOLDER}_{name}": value for name, value in metrics.items()}
        self._monitor.step(self._after + done, named)

    def note(self, message: str) -> None:
        """Tell the user."""
        self._monitor.note(message)

    def warn(self, message: str) -> None:
        """Warn the user."""
        self._monitor.warn(message)

    def finish(self) -> None:
        """End the phase."""
        self._monitor.finish()
