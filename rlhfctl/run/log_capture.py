"""Redirection of library output to the run's log file; telemetry and progress bars off."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ENVIRONMENT = {
    # Also disables the telemetry that TRL sends per training run.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}


def quiet_environment() -> None:
    """Set environment variables that silence libraries; call before importing any of them.

    Variables that are already set are not changed.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def capture_logs(log: Path, heading: str) -> Iterator[None]:
    """Redirect stdout and stderr, including those of libraries and child processes, to a file.

    The file descriptors are redirected, which covers C libraries and worker processes. Code that
    writes to the user meanwhile uses a copy of the original descriptor.

    Args:
        log: Log file, appended to.
        heading: First line, written with the time.

    Raises:
        OSError: The log file cannot be opened.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    originals: dict[int, int] = {}
    handler: logging.Handler | None = None
    try:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        os.write(descriptor, f"{now} === {heading}\n".encode())
        _flush()
        for standard in (1, 2):
            originals[standard] = os.dup(standard)
            os.dup2(descriptor, standard)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        logging.captureWarnings(capture=True)
        yield
    finally:
        if handler is not None:
            logging.captureWarnings(capture=False)
            logging.getLogger().removeHandler(handler)
        _flush()
        for standard, copy in originals.items():
            os.dup2(copy, standard)
            os.close(copy)
        os.close(descriptor)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
