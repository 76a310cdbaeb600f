"""SIGTERM as an exception, so that locks are freed and partial folders are handled."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminated(BaseException):
    """SIGTERM was received. Like KeyboardInterrupt, it is no failure that a stage handles."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM; outside the main thread, change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(_number: int, _frame: object) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
