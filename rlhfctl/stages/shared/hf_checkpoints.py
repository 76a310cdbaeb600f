"""Which of a transformers trainer's checkpoints are whole: those with a seal that fits.

The trainer writes a checkpoint file by file into the folder that it later looks for, so a kill in
between leaves one that looks finished. A seal is written last; a folder without one was cut short.
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
        """Seal the checkpoint that was just written."""
        from accelerate import PartialState

        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def seal(checkpoint: Path) -> None:
    """Flush a checkpoint and write down the digest of each of its files.

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
    """Return the newest checkpoint whose seal fits, or None where no save was ever finished.

    Args:
        folder: Of a trainer's `checkpoint-N`.

    Raises:
        CheckpointError: Saves were finished, and every one of them is damaged.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    sealed = [checkpoint for checkpoint in found if (checkpoint / SEAL).is_file()]
    for checkpoint in reversed(sealed):
        if _fits(checkpoint):
            return checkpoint
    if sealed:
        raise CheckpointError(
            f"none of {len(sealed)} checkpoints is undamaged",
            str(folder),
            "Start the stage anew with --force.",
        )
    return None


def _fits(checkpoint: Path) -> bool:
    try:
        files = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        return bool(files) and all(
            digest(checkpoint / name) == kept for name, kept in files.items()
        )
    except (OSError, ValueError, AttributeError):
        return False
