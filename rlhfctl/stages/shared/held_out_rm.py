"""Held-out reward model: never used by PPO, only to evaluate its policy."""

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
"""Offset of its seed from the recipe's."""


def held_out_rm_folder(recipe: Recipe, inputs: Mapping[str, Path]) -> Path | None:
    """Return the folder of the held-out reward model, or None.

    Args:
        recipe: Recipe; `evaluation.judge_rm` takes precedence.
        inputs: Inputs of the stage; `rm` may contain a held-out reward model.

    Raises:
        CheckpointError: The recipe names a folder that does not exist.
    """
    configured = recipe.evaluation.judge_rm
    if configured is not None:
        folder = Path(configured).expanduser()
        if not folder.is_dir():
            raise CheckpointError(
                "the folder of the held-out reward model does not exist",
                f"evaluation.judge_rm: {configured}",
                "Name a folder written by train-rm, or remove the key.",
            )
        return folder
    if "rm" in inputs and (inputs["rm"] / HELD_OUT_RM_FOLDER).is_dir():
        return inputs["rm"] / HELD_OUT_RM_FOLDER
    return None


def held_out_rm_index(recipe: Recipe, inputs: Mapping[str, Path]) -> int | None:
    """Return its index among the roles' reward models: after all reward sources; or None."""
    if held_out_rm_folder(recipe, inputs) is None:
        return None
    return int("rm" in inputs) + len(extra_reward_models(recipe.ppo))


class HeldOutRMMonitor:
    """Reports the held-out reward model's training as a continuation of the main model's."""

    def __init__(self, monitor: Monitor, after: int) -> None:
        """Store the monitor and the number of steps of the main model's training."""
        self._monitor = monitor
        self._after = after

    def start(self, stage: str, total: int, unit: str) -> None:
        """Start the phase; its steps continue those of the main model."""
        self._monitor.start(f"{stage} judge", self._after + total, unit)

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Report a step, with prefixed metric names."""
        prefixed = {f"{HELD_OUT_RM_FOLDER}_{name}": value for name, value in metrics.items()}
        self._monitor.step(self._after + done, prefixed)

    def note(self, message: str) -> None:
        """Pass on a note."""
        self._monitor.note(message)

    def warn(self, message: str) -> None:
        """Pass on a warning."""
        self._monitor.warn(message)

    def finish(self) -> None:
        """End the phase."""
        self._monitor.finish()
