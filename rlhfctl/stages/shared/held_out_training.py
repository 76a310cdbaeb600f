"""Held-out evaluations during training by transformers' trainers, and the best checkpoint.

transformers ties the saving of its best checkpoint to the evaluations, and an interrupted one would
lose the training since the last checkpoint. Here only states with a new lowest loss are saved, beside
the checkpoints that `save_minutes` and `save_steps` ask for; a request to stop within an evaluation
saves the state, and the resumed training repeats the evaluation.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerCallback

from rlhfctl.errors import CheckpointError
from rlhfctl.run import stop
from rlhfctl.run.sealed import damage
from rlhfctl.stages.shared.hf_checkpoints import checkpoint_at

if TYPE_CHECKING:
    from rlhfctl.recipe.training import TrainingSection

LOSS = "eval_loss"


class InterruptibleEvaluation(Trainer):  # type: ignore[misc]
    """Leaves an evaluation within training on a request to stop, so that the state is saved first.

    Attributes:
        in_training: Whether optimizer steps are still to be saved.
    """

    in_training = False

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """Return the metrics of the held-out rows; an infinite loss where a stop cuts it short."""
        try:
            metrics: dict[str, float] = super().evaluate(*arguments, **named)
        except stop.Stopped as stopped:
            if not self.in_training or stopped.urgent:
                raise
            self.control.should_save = True
            return {LOSS: math.inf}
        return metrics


class HeldOutEvaluations(TrainerCallback):  # type: ignore[misc]
    """Evaluates every `eval_steps` and after the last step; saves the states with the lowest loss.

    It must come before the callback that stops training once a checkpoint is sealed.
    """

    def __init__(self, trainer: Any, section: TrainingSection) -> None:
        """Store the trainer, how often to evaluate, and whether to load the best state at the end."""
        self.trainer = trainer
        self.every = section.eval_steps or 0
        self.keeps_best = section.load_best_model_at_end
        # Its arguments accept this only where all evaluated states are saved.
        trainer.args.load_best_model_at_end = self.keeps_best

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Repeat the evaluation of the checkpoint resumed from, if a stop interrupted it.

        Raises:
            CheckpointError: The checkpoint of the lowest loss is missing or damaged.
        """
        self.trainer.in_training = True
        if self.keeps_best and state.best_global_step is not None:
            # The run folder may have been moved since.
            best = _checkpoint(args, state.best_global_step)
            _require_undamaged(best)
            state.best_model_checkpoint = str(best)
        evaluated = {line["step"] for line in state.log_history if LOSS in line}
        if state.global_step and self._is_due(state) and state.global_step not in evaluated:
            self.trainer.evaluate()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Request an evaluation if one is due."""
        if self._is_due(state):
            control.should_evaluate = True

    def on_evaluate(
        self,
        args: Any,
        state: Any,
        control: Any,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Request a checkpoint of a state whose loss is the lowest so far."""
        loss = (metrics or {}).get(LOSS, math.inf)
        if not (self.trainer.in_training and self.keeps_best):
            return
        if loss < (math.inf if state.best_metric is None else state.best_metric):
            state.best_metric, state.best_global_step = loss, state.global_step
            # Rotation spares the checkpoint of this name.
            state.best_model_checkpoint = str(_checkpoint(args, state.global_step))
            control.should_save = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Later evaluations are of the result."""
        self.trainer.in_training = False

    def _is_due(self, state: Any) -> bool:
        step: int = state.global_step
        return step % self.every == 0 or bool(step >= state.max_steps)


def _require_undamaged(checkpoint: Path) -> None:
    problem = damage(checkpoint)
    if problem is not None:
        raise CheckpointError(
            f"the checkpoint of the lowest held-out loss cannot be used: {problem}",
            str(checkpoint),
            "Restore it from a copy, or start the stage anew with --force, which removes it.",
        )


def _checkpoint(args: Any, step: int) -> Path:
    return checkpoint_at(Path(args.output_dir), step)
