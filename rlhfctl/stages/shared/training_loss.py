"""Mean training loss and duration of a resumed stage, over all of its steps.

transformers starts its sums anew in each call of `train`. They are saved with each checkpoint, by
each process, and restored. Durations are saved beside the checkpoints: they differ between equal
runs, whose checkpoints are equal.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from rlhfctl.json_text import parse_json
from rlhfctl.run.files import write_json
from rlhfctl.stages.shared.hf_checkpoints import checkpoint_at

_CLOCK = "training_seconds.json"
"""Beside the checkpoints: step -> training time in seconds."""


class LossCallback(TrainerCallback):  # type: ignore[misc]
    """Carries a trainer's sums of losses over an interruption.

    It must come before the callback that seals checkpoints.

    Attributes:
        earlier_seconds: Training time before the checkpoint that training resumed from.
    """

    def __init__(self, trainer: Any) -> None:
        """Store the trainer."""
        self.trainer = trainer
        self.earlier_seconds = 0.0
        self.started = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Restore the sums of the checkpoint that training resumes from."""
        self.started = time.perf_counter()
        path = self._path(args, state)
        if state.global_step == 0 or not path.exists():
            return
        sums = parse_json(path.read_text(encoding="utf-8"))
        self.earlier_seconds = self._clock().get(str(state.global_step), 0.0)
        trainer = self.trainer
        trainer._total_loss_scalar = sums["logged"]
        trainer._tr_loss = torch.tensor(sums["unlogged"], device=args.device)
        trainer._globalstep_last_logged = sums["last_logged_step"]
        # The mean is over the steps since this one.
        trainer._initial_global_step = 0

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add the sums to the checkpoint."""
        trainer = self.trainer
        sums = {
            "logged": trainer._total_loss_scalar,
            "unlogged": float(trainer._tr_loss),
            "last_logged_step": trainer._globalstep_last_logged,
        }
        write_json(self._path(args, state), sums)
        if state.is_world_process_zero:
            seconds = self.earlier_seconds + time.perf_counter() - self.started
            write_json(self._clock_path(), self._clock() | {str(state.global_step): seconds})

    def discard_clock(self) -> None:
        """Remove the durations, once no attempt will resume the training."""
        self._clock_path().unlink(missing_ok=True)

    def _clock(self) -> dict[str, float]:
        """Return the durations by step; none without a readable file, which costs only a speed."""
        try:
            durations: dict[str, float] = parse_json(self._clock_path().read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return durations

    def _clock_path(self) -> Path:
        return Path(self.trainer.args.output_dir) / _CLOCK

    def _path(self, args: Any, state: Any) -> Path:
        checkpoint = checkpoint_at(Path(args.output_dir), state.global_step)
        return checkpoint / f"loss-{args.process_index}.json"
