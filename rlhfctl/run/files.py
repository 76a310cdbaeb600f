"""Atomic file writes and SHA-256 digests of files and folders."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

CHECKPOINTS = "checkpoints"
RESPONSES = "responses-"
"""Beginning of the names of files of responses that an evaluation has saved."""


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace a file atomically: readers see the old or the new content, even after a crash.

    Args:
        path: Destination; its folder must exist.
        content: Text (written as UTF-8) or bytes.

    Raises:
        OSError: The file cannot be written; the old content is unchanged.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_entry(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; keys keep their order.

    Raises:
        ValueError: A number is NaN or infinite, which JSON cannot represent.
        OSError: The file cannot be written.
    """
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the relative paths and contents in a folder.

    A folder's `checkpoints/` is excluded: it is for resuming and not part of the result.

    Raises:
        OSError: A file cannot be read.
    """
    if not path.is_dir():
        return _file_digest(path)
    combined = hashlib.sha256()
    for file in _files(path):
        name = file.relative_to(path).as_posix().encode("utf-8", "surrogateescape")
        combined.update(len(name).to_bytes(8, "big") + name)
        combined.update(bytes.fromhex(_file_digest(file)))
    return combined.hexdigest()


def sync_folder(root: Path) -> None:
    """Flush every file in a folder to disk, so that renaming the folder commits its contents."""
    for folder, _, names in os.walk(root):
        for name in names:
            file = Path(folder, name)
            if file.is_file() and not file.is_symlink():
                sync_entry(file)
        sync_entry(Path(folder))


def sync_entry(path: Path) -> None:
    """Flush one file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(root: Path) -> list[Path]:
    files: list[Path] = []
    for folder, folders, names in os.walk(root):
        if Path(folder) == root and CHECKPOINTS in folders:
            folders.remove(CHECKPOINTS)
        files.extend(Path(folder, name) for name in names)
    return sorted(files, key=lambda file: file.relative_to(root).parts)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
