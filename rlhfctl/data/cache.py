"""The cache of rows and token ids: entries named by a digest of all that they depend on.

An entry is a folder of Arrow files with `entry.json`, which is written last and names each file
with its size and checksum. A folder takes its name when it is complete, so readers need no lock.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from rlhfctl.data.arrow_parts import CannotStoreError, PartWriter, opened
from rlhfctl.data.progress import NO_PROGRESS
from rlhfctl.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset

    from rlhfctl.data.progress import Progress

VARIABLE = "RLHFCTL_CACHE"
"""Environment variable: the folder of the cache; empty keeps nothing."""
_ENTRY = "entry.json"
_BLOCK = 1 << 22
_DAY = 86400.0

JsonObject = dict[str, Any]
Make = Callable[[PartWriter], JsonObject]


class _DamagedError(Exception):
    """An entry that is not as it was written; the message is the reason."""


@dataclass(frozen=True)
class Entry:
    """Rows with a record about them.

    Attributes:
        record: JSON object.
        rows: The rows, memory-mapped unless they are not stored.
        reused: Whether the rows were stored before.
    """

    record: JsonObject
    rows: Dataset
    reused: bool


def cache_folder() -> Path | None:
    """Return the folder of the cache: `$RLHFCTL_CACHE`, or `rlhfctl` in the user's cache folder.

    None if the variable is empty: nothing is stored.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return Path(chosen).expanduser() / "data" if chosen else None
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if base.startswith("/") else Path("~/.cache").expanduser()
    return root / "rlhfctl" / "data"


def stored(key: str | None, make: Make, progress: Progress, *, in_memory: bool = True) -> Entry:
    """Return the entry of a key, made and stored if there is none.

    Processes that ask at the same time make it once. Where nothing can be written the rows are
    made in memory, with a note.

    Args:
        key: Result of `digest_of`; None stores nothing.
        make: Writes the rows and returns the record; raises what it wants.
        progress: Receives notes.
        in_memory: Whether the rows may be in memory instead.

    Raises:
        CannotStoreError: Nothing can be written, and the rows must not be in memory.
    """
    folder = cache_folder()
    if key is None or folder is None:
        return _unstored(make)
    entry = _reusable(folder / key, progress)
    if entry is not None:
        return entry
    try:
        with _locked(folder / f"{key}.lock", progress):
            # Damage was said above.
            return _reusable(folder / key, NO_PROGRESS) or _new(folder, key, make)
    except CannotStoreError as error:
        if not in_memory:
            raise
        progress.note(
            f"nothing is stored in the cache, since {folder} cannot be written: {error}. "
            f"Name another folder by {VARIABLE}."
        )
        return _unstored(make)


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress.note("waiting for another process that encodes the same rows")
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise CannotStoreError(getattr(error, "strerror", None) or str(error)) from error
    try:
        yield
    finally:
        lock.release()


def _unstored(make: Make) -> Entry:
    parts = PartWriter(None)
    record = make(parts)
    return Entry(record, parts.in_memory(), reused=False)


def _new(folder: Path, key: str, make: Make) -> Entry:
    for left in folder.glob(f".{key}-*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        work = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=folder))
    except OSError as error:
        raise CannotStoreError(error.strerror or str(error)) from error
    try:
        parts = PartWriter(work)
        record = make(parts)
        parts.close()
        try:
            files = {name: _checked(work / name) for name in parts.names}
            content = json.dumps({"record": record, "files": files})
            (work / _ENTRY).write_text(content, encoding="utf-8")
            shutil.rmtree(folder / key, ignore_errors=True)
            work.chmod(0o755)
            work.rename(folder / key)
        except OSError as error:
            raise CannotStoreError(error.strerror or str(error)) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    rows = opened([folder / key / name for name in parts.names])
    return Entry(record, rows, reused=False)


def _reusable(folder: Path, progress: Progress) -> Entry | None:
    """Return a stored entry; None if there is none, or a damaged one."""
    try:
        return _read(folder)
    except OSError:
        # None yet; or it cannot be read, and then its replacement says why.
        return None
    except _DamagedError as error:
        progress.note(f"the cache entry {folder} is damaged ({error}); its rows are encoded again")
        return None


def _read(folder: Path) -> Entry:
    text = (folder / _ENTRY).read_bytes()
    try:
        content = parse_json(text)
        record, files = dict(content["record"]), dict(content["files"])
    except (ValueError, TypeError, KeyError) as error:
        raise _DamagedError(f"{_ENTRY} cannot be read") from error
    for name, expected in files.items():
        try:
            actual = _checked(folder / name)
        except OSError as error:
            raise _DamagedError(f"{name}: {error.strerror or error}") from error
        if actual != expected:
            raise _DamagedError(f"{name} has changed")
    with suppress(OSError):  # when it was last used, for `data clean`
        os.utime(folder)
    return Entry(record, opened([folder / name for name in files]), reused=True)


def _checked(path: Path) -> list[int]:
    """Return the size and the CRC-32 of a file."""
    size = checksum = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
    return [size, checksum]


@dataclass(frozen=True)
class Cleaned:
    """Entries that were removed.

    Attributes:
        entries: Their number.
        bytes: Their size.
    """

    entries: int
    bytes: int


def clean(unused_days: float = 0.0) -> Cleaned:
    """Remove the entries of the cache, and what killed processes have left.

    Args:
        unused_days: Entries that were used within as many days stay.

    Raises:
        OSError: An entry cannot be removed.
    """
    folder = cache_folder()
    if folder is None or not folder.is_dir():
        return Cleaned(0, 0)
    now = time.time()
    removed = size = 0
    for item in sorted(folder.iterdir()):
        if not item.is_dir():
            continue
        unfinished = item.name.startswith(".")
        days = max(unused_days, 1.0) if unfinished else unused_days
        if item.stat().st_mtime > now - days * _DAY:
            continue
        removed += not unfinished
        size += sum(file.stat().st_size for file in item.iterdir())
        shutil.rmtree(item)
        item.with_name(f"{item.name}.lock").unlink(missing_ok=True)
    return Cleaned(removed, size)
