"""Checksums that mark complete checkpoints of a transformers trainer.

The trainer writes a checkpoint's files directly into its final folder, so a killed process leaves a
partial one that looks complete. The checksums (`sealed.json`) are written last.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rlhfctl.errors import CheckpointError
from rlhfctl.run.files import digest, sync_folder, write_json

SEAL = "sealed.json"


class SealCallback(TrainerCallback):  # type: ignore[misc]
    """Seals each checkpoint once every process has written its part."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the checkpoint just written."""
        from accelerate import PartialState

        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def seal(checkpoint: Path) -> None:
    """Flush a checkpoint to disk and write the digest of each of its files.

    Raises:
        OSError: The disk is full, or a file cannot be read.
    """
    (checkpoint / SEAL).unlink(missing_ok=True)
    sync_folder(checkpoint)
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    write_json(
        checkpoint / SEAL,
        {path.relative_to(checkpoint).as_posix(): digest(path) for path in files},
    )


def newest_sound(folder: Path) -> Path | None:
    """Return the newest checkpoint whose digests match, or None if none was completed.

    Args:
        folder: Parent of the trainer's `checkpoint-N` folders.

    Raises:
        CheckpointError: Every completed checkpoint is damaged.
    """
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    sealed = [checkpoint for checkpoint in checkpoints if (checkpoint / SEAL).is_file()]
    for checkpoint in reversed(sealed):
        if _fits(checkpoint):
            return checkpoint
    if sealed:
        raise CheckpointError(
            f"none of {len(sealed)} checkpoints is undamaged",
            str(folder),
            "Restart the stage with --force.",
        )
    return None


def _fits(checkpoint: Path) -> bool:
    try:
        files = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        return bool(files) and all(
            digest(checkpoint / name) == expected for name, expected in files.items()
        )
    except (OSError, ValueError, AttributeError):
        return False
