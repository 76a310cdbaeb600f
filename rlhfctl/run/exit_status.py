"""What each process of a launched command leaves behind for the one that launched it.

A launcher turns every exit code of a process into 1 and knows no reasons. So each process writes
a small file when it begins, and its exit code and error there when it ends; a file that still says
nothing belongs to a process that died without a word.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhfctl.run.files import write_json

VARIABLE = "RLHFCTL_WORDS"
"""Names the folder of the words; set for the processes of ``--launch``."""


@dataclass(frozen=True)
class ExitStatus:
    """How a process ended, or that it began.

    Attributes:
        rank: Its number.
        pid: Its process id.
        code: Its exit code; None while it has not ended.
        message: Why it ended, as a user should read it; empty if it has been shown.
        error: The same as JSON values, for ``--json``.
        traceback: For ``--debug``.
        time: When it was written, in seconds since 1970.
    """

    rank: int
    pid: int
    code: int | None = None
    message: str = ""
    error: dict[str, Any] | None = None
    traceback: str = ""
    time: float = 0.0


def expected() -> bool:
    """Whether someone will read this process's words, and show them."""
    return VARIABLE in os.environ


def begin() -> None:
    """Say that this process is there, if someone listens."""
    if expected():
        _write(ExitStatus(_rank(), os.getpid(), time=time.time()))


def leave(
    code: int, message: str = "", error: dict[str, Any] | None = None, traceback: str = ""
) -> None:
    """Say how this process ends, if someone listens; its first such word stands."""
    if not expected():
        return
    said = _read(_path())
    if said is None or said.code is None:
        _write(ExitStatus(_rank(), os.getpid(), code, message, error, traceback, time.time()))


def read(folder: Path) -> list[ExitStatus]:
    """Return every process's last word, by rank."""
    found = [_read(path) for path in folder.glob("rank-*.json")]
    return sorted((word for word in found if word is not None), key=lambda word: word.rank)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _path() -> Path:
    return Path(os.environ[VARIABLE]) / f"rank-{_rank()}.json"


def _write(word: ExitStatus) -> None:
    write_json(_path(), asdict(word))


def _read(path: Path) -> ExitStatus | None:
    if not path.is_file():
        return None
    return ExitStatus(**json.loads(path.read_text(encoding="utf-8")))
