"""Files that carry or hold digests, so that a changed byte is found when they are read again."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import CheckpointError
from rlhfctl.json_text import parse_json
from rlhfctl.run.files import digest, sync_folder, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from rlhfctl.run.monitor import Monitor

SEAL = "sealed.json"
"""In a checkpoint: digest of each of its files. It is written last, so it marks a whole one."""
DIGEST_KEY = "sha256"
_LINE = "# SHA-256 of the lines above: "


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, as `sealed` returns it.

    Raises:
        ValueError: A number is NaN or infinite.
        OSError: The file cannot be written.
    """
    write_json(path, sealed(value))


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping of JSON values with the SHA-256 of its other entries under `DIGEST_KEY`."""
    rest = {key: item for key, item in value.items() if key != DIGEST_KEY}
    return {**rest, DIGEST_KEY: _value_digest(rest)}


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Return a mapping from `write_sealed` without its digest; None if it is missing or damaged."""
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
        if not has_own_digest(value):
            return None
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    return {key: item for key, item in value.items() if key != DIGEST_KEY}


def has_own_digest(value: Mapping[str, Any]) -> bool:
    """Return whether the digest in a mapping from `write_sealed` is that of its other entries."""
    return bool(value.get(DIGEST_KEY) == sealed(value)[DIGEST_KEY])


def with_digest_line(text: str) -> str:
    """Return YAML text, which ends with a line break, with a comment that holds its SHA-256."""
    return f"{text}{_LINE}{hashlib.sha256(text.encode('utf-8')).hexdigest()}\n"


def has_changed(text: str) -> bool:
    """Return whether text from `with_digest_line` was changed; False for text without a comment."""
    above, _, last = text.rstrip("\n").rpartition("\n")
    return last.startswith("#") and text != with_digest_line(f"{above}\n")


def seal(checkpoint: Path, processes: int) -> None:
    """Flush a checkpoint to disk and write the digest of each of its files.

    Args:
        checkpoint: Folder.
        processes: Number of processes that train.

    Raises:
        OSError: The disk is full, or a file cannot be read.
    """
    (checkpoint / SEAL).unlink(missing_ok=True)
    sync_folder(checkpoint)
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    digests = {path.relative_to(checkpoint).as_posix(): digest(path) for path in files}
    write_sealed(checkpoint / SEAL, {"processes": processes, "files": digests})


def damage(checkpoint: Path) -> str | None:
    """Return which file of a sealed checkpoint was changed or is missing; None if it is whole."""
    contents = _contents(checkpoint)
    if contents is None:
        return f"{SEAL} is damaged"
    for name, expected in contents["files"].items():
        try:
            if digest(checkpoint / name) != expected:
                return f"{name} was changed"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def newest_undamaged(
    checkpoints: Iterable[Path], folder: Path, unit: str, monitor: Monitor
) -> Path | None:
    """Return the newest sealed checkpoint that is whole, or None if there are none.

    Args:
        checkpoints: Folders named NAME-NUMBER or NAME-NUMBER-MORE, in any order; the names of one
            number sort by age.
        folder: Their parent, for errors.
        unit: What the numbers count, such as ``steps``.
        monitor: Told which newer checkpoints are damaged, and how much is lost.

    Raises:
        CheckpointError: All are damaged.
    """
    damaged: list[str] = []
    newest = 0
    for checkpoint in sorted(
        checkpoints, key=lambda path: (_number(path), path.name), reverse=True
    ):
        newest = max(newest, _number(checkpoint))
        problem = damage(checkpoint)
        if problem is not None:
            damaged.append(f"{checkpoint.name}: {problem}")
            continue
        if damaged:
            monitor.warn(
                f"{'; '.join(damaged)}; resuming from {checkpoint.name}, so "
                f"{newest - _number(checkpoint):,} {unit} are lost"
            )
        return checkpoint
    if damaged:
        raise CheckpointError(
            f"no checkpoint of this stage is usable: {'; '.join(damaged)}",
            str(folder),
            "Restore one from a copy, or start the stage anew with --force, which removes them.",
        )
    return None


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def processes_of(checkpoint: Path) -> int | None:
    """Return the number of processes that saved a checkpoint; None if its seal is damaged."""
    contents = _contents(checkpoint)
    return None if contents is None else int(contents["processes"])


def _contents(checkpoint: Path) -> dict[str, Any] | None:
    contents = read_sealed(checkpoint / SEAL)
    return contents if contents and contents.get("files") else None


def _value_digest(value: Mapping[str, Any]) -> str:
    # As it is read back: JSON makes text of keys, and lists of tuples.
    plain = parse_json(json.dumps(value))
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
