"""Checkpoints of a transformers trainer that can be resumed from.

The trainer writes a checkpoint's files directly into its final folder, so a killed process leaves a
partial one that looks complete. The digests of its files (`sealed.json`) are written last.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.trainer import TRAINING_ARGS_NAME

from rlhfctl.models import adapters
from rlhfctl.run.sealed import SEAL, newest_undamaged, seal

if TYPE_CHECKING:
    from rlhfctl.run.monitor import Monitor


class SealCallback(TrainerCallback):  # type: ignore[misc]
    """Seals each checkpoint once every process has written its part."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the checkpoint just written."""
        from accelerate import PartialState

        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            checkpoint = checkpoint_at(Path(args.output_dir), state.global_step)
            _make_reproducible(checkpoint)
            seal(checkpoint, args.world_size)


def _make_reproducible(checkpoint: Path) -> None:
    """Make checkpoints of equal runs equal, and remove what is never read.

    `training_args.bin` is a pickle that resuming does not need; it names the machine's paths.
    """
    (checkpoint / TRAINING_ARGS_NAME).unlink(missing_ok=True)
    if adapters.is_adapter(checkpoint):
        adapters.rewrite_config(checkpoint)


def checkpoint_at(folder: Path, step: int) -> Path:
    """Return the folder that transformers gives a checkpoint after `step` optimizer steps."""
    return folder / f"checkpoint-{step}"


def discard_unsound(folder: Path, step: int) -> None:
    """Remove the checkpoint after `step`, if any: training cannot go on from its weights."""
    shutil.rmtree(checkpoint_at(folder, step), ignore_errors=True)


def newest_valid(folder: Path, monitor: Monitor) -> Path | None:
    """Return the newest checkpoint whose digests match, or None if none was completed.

    Args:
        folder: Parent of the trainer's `checkpoint-N` folders.
        monitor: Told which newer checkpoints are damaged, and the steps that are lost.

    Raises:
        CheckpointError: Every completed checkpoint is damaged.
    """
    sealed = [path for path in folder.glob("checkpoint-*") if (path / SEAL).is_file()]
    return newest_undamaged(sealed, folder, "steps", monitor)
