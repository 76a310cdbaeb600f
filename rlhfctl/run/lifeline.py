"""End of processes whose starter was killed: those of ``--launch``, torchrun or a sweep.

A killed process can't pass its end on, so those that it started look for it. A child sees that its
parent's id has changed. The processes of ``--launch`` are its grandchildren, and read from a pipe
that nobody can write to once it is gone.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.run import exit_status, stop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PARENT = "RLHFCTL_PARENT"
"""Environment variable: id of the process without which this one must not go on."""
_PIPE = "launcher-lives"
_POLL = 1.0  # seconds
_GRACE_PERIOD = 8.0
"""Seconds to save a checkpoint."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the processes that are launched within the context end with this one.

    Args:
        folder: Folder of their exit statuses.
    """
    path = folder / _PIPE
    os.mkfifo(path)
    # A pipe can be opened for writing only once it is open for reading.
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    try:
        yield
    finally:
        os.close(writer)
        os.close(reader)


def for_child() -> Mapping[str, str]:
    """Return the environment variables of a child process that must end with this one."""
    return {PARENT: str(os.getpid())}


def end_with_starter() -> None:
    """Stop this process, from another thread, when the process that started it is gone.

    Without effect in a process that a person or a scheduler has started.
    """
    parent = int(os.environ.pop(PARENT, "0"))
    if "LOCAL_RANK" in os.environ:
        parent = parent or os.getppid()
    pipe = _open_pipe()
    if parent or pipe is not None:
        threading.Thread(target=_await_end, args=(parent, pipe), daemon=True).start()


def _open_pipe() -> int | None:
    if not exit_status.expected():
        return None
    path = Path(os.environ[exit_status.VARIABLE]) / _PIPE
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK) if path.exists() else None


def _await_end(parent: int, pipe: int | None) -> None:
    while not (_closed(pipe) or (parent and os.getppid() != parent)):
        if pipe is None:
            time.sleep(_POLL)
    stop.request("the process that started this one is gone")
    time.sleep(_GRACE_PERIOD)
    os.kill(os.getpid(), signal.SIGKILL)


def _closed(pipe: int | None) -> bool:
    """Return whether nobody can write to a pipe any more; wait up to `_POLL` for that."""
    if pipe is None:
        return False
    readable, _, _ = select.select([pipe], [], [], _POLL)
    return bool(readable) and os.read(pipe, 1) == b""
