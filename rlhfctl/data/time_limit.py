"""Limit on the time of a computation in this thread, such as a chat template's loop."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class TimeLimitError(BaseException):
    """The computation took too long. No Exception, so that it passes the code that it interrupts."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt the body after some time, by SIGALRM.

    Signals reach the main thread only, between two Python instructions: elsewhere, and within a
    single long operation, there is no limit.

    Raises:
        TimeLimitError: The body took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        raise TimeLimitError

    previous = signal.signal(signal.SIGALRM, interrupt)
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, remaining, interval)
        signal.signal(signal.SIGALRM, previous)
