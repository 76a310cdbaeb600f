"""Exit status files of launched processes, read by the command that launched them.

A launcher replaces every exit code by 1 and drops the reason. So each process writes a small file
when it starts, and adds its exit code and error when it ends. A file without an exit
code belongs to a process that was killed.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import LostProcessFault
from rlhfctl.json_text import parse_json
from rlhfctl.run.files import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

VARIABLE = "RLHFCTL_EXIT_STATUS"
"""Environment variable: folder of these files; set for the processes of ``--launch``."""


@dataclass(frozen=True)
class ExitStatus:
    """The start or the end of a process.

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
    """Return whether a launching command will read and show this process's exit status."""
    return VARIABLE in os.environ


def begin() -> None:
    """Record that this process has started, if its status is expected."""
    if expected():
        _write(ExitStatus(_rank(), os.getpid(), time=time.time()))


def leave(
    code: int, message: str = "", error: dict[str, Any] | None = None, traceback: str = ""
) -> None:
    """Record the exit of this process, if its status is expected; the first record is kept."""
    if not expected():
        return
    recorded = _read(_path())
    if recorded is None or recorded.code is None:
        _write(ExitStatus(_rank(), os.getpid(), code, message, error, traceback, time.time()))


def read(folder: Path) -> list[ExitStatus]:
    """Return the status of every process, by rank."""
    statuses = [_read(path) for path in folder.glob("rank-*.json")]
    return sorted((status for status in statuses if status), key=lambda status: status.rank)


def lost() -> list[ExitStatus]:
    """Return the processes of this machine that are gone and have recorded no exit."""
    if not expected():
        return []
    statuses = read(Path(os.environ[VARIABLE]))
    return [status for status in statuses if status.code is None and not alive(status.pid)]


def alive(pid: int) -> bool:
    """Return whether a process of this user exists."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def lost_fault(statuses: Sequence[ExitStatus], log: str = "") -> LostProcessFault:
    """Return the error for processes that ended without a status."""
    names = " and ".join(f"process {status.rank} (pid {status.pid})" for status in statuses)
    return LostProcessFault(
        f"{names} exited without a status",
        log,
        "it may have been killed for lack of memory (see `dmesg`); re-running the command "
        "resumes from the last checkpoint",
    )


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _path() -> Path:
    return Path(os.environ[VARIABLE]) / f"rank-{_rank()}.json"


def _write(status: ExitStatus) -> None:
    write_json(_path(), asdict(status))


def _read(path: Path) -> ExitStatus | None:
    if not path.is_file():
        return None
    return ExitStatus(**parse_json(path.read_text(encoding="utf-8")))
