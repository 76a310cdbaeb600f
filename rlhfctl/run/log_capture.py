"""Keeps libraries quiet: their telemetry off, their warnings and bars in the run's log file."""

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
    # huggingface_hub's own switch, which TRL's report of every training run honours too
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}


def quiet_environment() -> None:
    """Set what libraries read from the environment; call before any of them is imported.

    A variable that the user has set stays as it is.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def capture_logs(log: Path, heading: str) -> Iterator[None]:
    """Send everything written to stdout and stderr, by any library or child, to a log file.

    The file descriptors themselves are turned, so that C libraries and worker processes go there
    too. Whoever must reach the user meanwhile holds a copy of the old descriptor.

    Args:
        log: The file, appended to.
        heading: Written first, with the time.

    Raises:
        OSError: The log file cannot be opened.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    kept: dict[int, int] = {}
    handler: logging.Handler | None = None
    try:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        os.write(descriptor, f"{now} === {heading}\n".encode())
        _flush()
        for standard in (1, 2):
            kept[standard] = os.dup(standard)
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
        for standard, copy in kept.items():
            os.dup2(copy, standard)
            os.close(copy)
        os.close(descriptor)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
