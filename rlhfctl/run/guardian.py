"""A process that runs another program's server and ends it when whoever started it is gone.

`python -m rlhfctl.run.guardian PID COMMAND...`: PID is the starter's. A killed starter cannot end its
server, and a server that is not ours does not look for the starter's end, so this process does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_POLL = 0.2  # seconds
GRACE_PERIOD = 10.0
"""Seconds between SIGTERM and SIGKILL."""


def guarded(command: Sequence[str]) -> list[str]:
    """Return the command line that runs a command and ends it with this process."""
    return [sys.executable, "-m", "rlhfctl.run.guardian", str(os.getpid()), *command]


def main() -> int:
    """Run the command until it ends, its starter is gone or SIGTERM comes; return its exit code."""
    starter, command = int(sys.argv[1]), sys.argv[2:]
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    # A session of its own, so that Ctrl-C reaches the starter alone and all processes can be ended.
    process = subprocess.Popen(command, start_new_session=True)
    while process.poll() is None and not asked and os.getppid() == starter:
        time.sleep(_POLL)
    _end(process)
    code: int | None = process.returncode
    return abs(code or 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command and the processes that it has left behind."""
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_PERIOD
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)  # raises once nobody is left
            time.sleep(_POLL)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
