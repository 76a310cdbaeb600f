"""Checks of memory, disks, folders and locks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.activity import byte_size
from rlhfctl.data.cache import cache_folder
from rlhfctl.doctor.check import Check, worse
from rlhfctl.run.directory import LOCK_HOLDER_FILE, RunDirectory
from rlhfctl.run.disk import free_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

_LITTLE_MEMORY = 2e9
_LITTLE_DISK = 5e9
_MEMORY_FILES = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
"""Limit and use of a container's memory, of control groups version 2 and 1."""


def check_memory() -> Iterator[Check]:
    """Check the memory that is free, in a container by its limit."""
    available = available_memory()
    if available is None:
        return
    what = f"{byte_size(available)} free"
    if available < _LITTLE_MEMORY:
        remedy = "End other processes, or raise the container's limit."
        yield Check("memory", "warn", what, remedy)
    else:
        yield Check("memory", "ok", what)


def available_memory() -> int | None:
    """Return the bytes of memory that this process may still use; None if unknown."""
    bounds = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(
            line.split(":", 1) for line in meminfo.read_text(encoding="utf-8").splitlines()
        )
        if "MemAvailable" in lines:
            bounds.append(int(lines["MemAvailable"].split()[0]) * 1024)
    for limit, use in _MEMORY_FILES:
        try:
            # "max" means no limit.
            bounds.append(int(limit.read_text()) - int(use.read_text()))
        except (OSError, ValueError):
            continue
    return min(bounds, default=None)


def check_folders(runs_dir: Path, *, needed: bool) -> Iterator[Check]:
    """Check that runs, the Hub's cache and rlhfctl's cache can be written, and their disks.

    Args:
        runs_dir: Directory for runs; need not exist.
        needed: Whether a run is to follow.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    hub, rows = Path(HF_HUB_CACHE), cache_folder()
    yield _folder("runs", runs_dir, worse(needed) == "fail", "Choose another with --runs-dir.")
    yield _folder("Hub cache", hub, False, "Set HF_HOME to a folder that can be written.")
    if rows is not None:
        remedy = "Set RLHFCTL_CACHE to a folder that can be written, or to nothing."
        yield _folder("row cache", rows, False, remedy)


def _folder(name: str, folder: Path, fatal: bool, remedy: str) -> Check:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Check(name, worse(fatal), f"{folder} cannot be written", remedy)
    free = free_bytes(folder)
    what = f"{folder}: {byte_size(free)} free"
    if free < _LITTLE_DISK:
        return Check(name, "warn", what, f"Free some space. {remedy}")
    return Check(name, "ok", what)


def check_locks(runs_dir: Path) -> Check:
    """Look for locks of processes that were killed; the next run in the folder takes such a lock."""
    orphaned: list[Path] = []
    busy: list[Path] = []
    for depth in ("*", "*/*"):
        for holder in sorted(runs_dir.glob(f"{depth}/{LOCK_HOLDER_FILE}")):
            folder = holder.parent
            if folder.is_symlink() or folder.parent.is_symlink():
                continue
            (busy if RunDirectory(folder).is_locked() else orphaned).append(holder)
    if orphaned:
        folders = ", ".join(str(holder.parent) for holder in orphaned)
        remedy = f"Run it again to resume, or: rm {' '.join(map(str, orphaned))}"
        return Check("locks", "warn", f"left by a process that was killed: {folders}", remedy)
    if busy:
        folders = ", ".join(str(holder.parent) for holder in busy)
        return Check("locks", "ok", f"in use by other processes: {folders}")
    return Check("locks", "ok", "none")
