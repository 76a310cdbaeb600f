"""Exit status of each process of a launched command, in a file for the command that launched it.

A launcher turns every exit code of a process into 1 and drops the reason. So each process writes a
small file when it starts, and adds its exit code and error when it ends. A file without an exit
code belongs to a process that was killed.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhfctl.run.files import write_json

VARIABLE = "RLHFCTL_EXIT_STATUS"
"""Environment variable with the folder of these files; set for the processes of ``--launch``."""


@dataclass(frozen=True)
class ExitStatus:
    """The start of a process or its end.

    Attributes:
        rank: Rank of the process.
        pid: Process id.
        code: Exit code; None while the process runs.
        message: Error message for the user; empty if it was already shown.
        error: The error as JSON values, for ``--json``.
        traceback: Traceback, for ``--debug``.
        time: Time of writing, in seconds since 1970.
    """

    rank: int
    pid: int
    code: int | None = None
    message: str = ""
    error: dict[str, Any] | None = None
    traceback: str = ""
    time: float = 0.0


def expected() -> bool:
    """Whether a launching command will read and show this process's exit status."""
    return VARIABLE in os.environ


def begin() -> None:
    """Record that this process has started, if its status is expected."""
    if expected():
        _write(ExitStatus(_rank(), os.getpid(), time=time.time()))


def leave(
    code: int, message: str = "", error: dict[str, Any] | None = None, traceback: str = ""
) -> None:
    """Record how this process ends, if its status is expected; the first record is kept."""
    if not expected():
        return
    recorded = _read(_path())
    if recorded is None or recorded.code is None:
        _write(ExitStatus(_rank(), os.getpid(), code, message, error, traceback, time.time()))


def read(folder: Path) -> list[ExitStatus]:
    """Return the status of every process, by rank."""
    statuses = [_read(path) for path in folder.glob("rank-*.json")]
    return sorted((status for status in statuses if status), key=lambda status: status.rank)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _path() -> Path:
    return Path(os.environ[VARIABLE]) / f"rank-{_rank()}.json"


def _write(status: ExitStatus) -> None:
    write_json(_path(), asdict(status))


def _read(path: Path) -> ExitStatus | None:
    if not path.is_file():
        return None
    return ExitStatus(**json.loads(path.read_text(encoding="utf-8")))
