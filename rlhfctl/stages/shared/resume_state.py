"""Check of the trainer's pickled state before it is resumed from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.serialization import get_unsafe_globals_in_checkpoint
from transformers.trainer_pt_utils import safe_globals

from rlhfctl.errors import UnsafeError

if TYPE_CHECKING:
    from pathlib import Path

_PICKLED = ("*.pt", "*.pth")


def require_plain_state(checkpoint: Path) -> None:
    """Refuse a checkpoint whose optimizer, scheduler or generator state would run code.

    The pickles are disassembled, not loaded.

    Args:
        checkpoint: Folder of a transformers trainer.

    Raises:
        UnsafeError: Names the file and what it would call.
    """
    for path in sorted(path for pattern in _PICKLED for path in checkpoint.glob(pattern)):
        try:
            with safe_globals():
                called = get_unsafe_globals_in_checkpoint(str(path))
        except (ValueError, RuntimeError, OSError, EOFError, IndexError, KeyError) as error:
            raise _refused(path, f"is no file of tensors ({type(error).__name__})") from error
        if called:
            raise _refused(path, f"would run code when it is read ({', '.join(sorted(called))})")


def _refused(path: Path, reason: str) -> UnsafeError:
    return UnsafeError(
        f"the checkpoint's state {reason}",
        str(path),
        "It was not written by rlhfctl; restart the stage with --force.",
    )
