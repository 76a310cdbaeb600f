"""Disk space: refusal before a write that will not fit, and a clear error for one that did not."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.errors import DiskFullError

if TYPE_CHECKING:
    from collections.abc import Iterator

MARGIN = 1.1
"""Factor on the expected size of what is written."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SIGNS = ("No space left on device", "PytorchStreamWriter failed writing", "inline_container.cc")
_UNITS = ("bytes", "KB", "MB", "GB", "TB")


def require_space(folder: Path, needed: float, purpose: str) -> None:
    """Refuse to write where there is no space.

    Args:
        folder: Where it will be written; need not exist.
        needed: Bytes, without a margin.
        purpose: What is written, as a noun phrase.

    Raises:
        DiskFullError: Fewer than `MARGIN` times the bytes are free.
    """
    if free_bytes(folder) < needed * MARGIN:
        raise _full(folder, needed, purpose)


@contextmanager
def space_for(
    folder: Path, needed: float, purpose: str, partial: Path | None = None
) -> Iterator[None]:
    """Write within the context; libraries name a full disk in many ways, and this in one.

    Args:
        folder: Where it is written; need not exist.
        needed: Bytes, without a margin.
        purpose: What is written, as a noun phrase.
        partial: Folder that is removed if the disk is full.

    Raises:
        DiskFullError: The disk is full, before or during the write.
    """
    require_space(folder, needed, purpose)
    try:
        yield
    except Exception as error:
        if not _is_full(error):
            raise
        fault = _full(folder, needed, purpose)
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        raise fault from error


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on or will be on."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below a folder; 0 if there is none."""
    total = 0
    for parent, _, names in os.walk(folder):
        total += sum(Path(parent, name).lstat().st_size for name in names)
    return total


def _is_full(error: Exception) -> bool:
    """Return whether an error is due to a full disk; torch's archives only say that writing failed."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    text = str(error)
    return any(sign in text for sign in _SIGNS)


def _full(folder: Path, needed: float, purpose: str) -> DiskFullError:
    return DiskFullError(
        f"the disk is full: {purpose} needs {_shown(needed * MARGIN)}, and "
        f"{_shown(free_bytes(folder))} are free",
        where=str(folder),
        hint="Free some space, then re-run the command. Finished stages and earlier checkpoints are "
        "kept.",
    )


def _shown(count: float) -> str:
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"
