"""Refusal of NaN and infinite numbers in training by transformers' trainers.

Loss and gradient norm are read before every optimizer step, at the cost of one transfer from the
device. A state whose loss or gradient is not finite is no state to resume from, so its checkpoint is
removed. Rotation keeps the one before, from which training went on.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer

from rlhfctl.errors import DivergedError
from rlhfctl.maths.finite import first_not_finite
from rlhfctl.stage_table import stage_named
from rlhfctl.stages.shared.hf_checkpoints import discard_unsound

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST_OVERFLOW = 40
"""Steps in a row that the loss scale of float16 may skip; it has then fallen to 2^-24."""


class FiniteTraining(Trainer):  # type: ignore[misc]
    """Ends training before an optimizer step whose loss or gradient norm is not finite.

    Attributes:
        stage_name: sft or rm, for messages.
    """

    stage_name = ""
    _step_loss: torch.Tensor | None = None
    _overflows = 0

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        """Add a forward pass's loss to that of the optimizer step."""
        loss: torch.Tensor = super().training_step(*arguments, **named)
        self._step_loss = loss if self._step_loss is None else self._step_loss + loss
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Return the gradient norm before clipping, which the trainer asks for before each step."""
        norm = super()._get_grad_norm(model, grad_norm)
        if self._step_loss is not None:
            self._require_finite(self._step_loss, norm)
        self._step_loss = None
        return norm

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        """Save only finite weights."""
        require_finite_weights(self, self.stage_name)
        super()._save_checkpoint(*arguments, **named)

    def _require_finite(self, loss: torch.Tensor, norm: Any) -> None:
        pair = torch.stack([loss.float(), torch.as_tensor(norm, device=loss.device).float()])
        if self.args.world_size > 1:
            # The mean over processes is finite only if all are, so that all of them end alike.
            pair = self.accelerator.reduce(pair, "mean")
        values = dict(zip(("loss", "gradient norm"), pair.tolist(), strict=True))
        if self.accelerator.scaler is not None and not math.isfinite(values["gradient norm"]):
            # Expected in float16: the step is skipped and the scale halved.
            self._overflows += 1
            if self._overflows < _LONGEST_OVERFLOW:
                del values["gradient norm"]
        else:
            self._overflows = 0
        require_finite(self, self.stage_name, values, f"at step {self.state.global_step + 1}")


def require_finite(trainer: Any, stage: str, values: Mapping[str, float], when: str) -> None:
    """Refuse metrics that are not finite, and remove the checkpoint of the present weights.

    Args:
        trainer: Trainer of the weights.
        stage: sft or rm.
        values: Metrics of the present weights by name.
        when: End of the message.

    Raises:
        DivergedError: One is NaN or infinite.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            if trainer.is_world_process_zero():
                discard_unsound(Path(trainer.args.output_dir), trainer.state.global_step)
            raise _diverged(f"{name} is {value} {when}", stage)


def require_finite_weights(trainer: Any, stage: str) -> None:
    """Refuse trained weights that are not finite.

    Raises:
        DivergedError: A weight is NaN or infinite.
    """
    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    name = first_not_finite(trained)
    if name is not None:
        raise _diverged(f"{name} is not finite after step {trainer.state.global_step}", stage)


def _diverged(problem: str, stage: str) -> DivergedError:
    key = f"{stage_named(stage).module}.learning_rate"
    return DivergedError(
        problem,
        f"stage {stage}",
        f"Lower {key}, for example with --set {key}=1e-5; results of earlier stages are unchanged.",
    )
