"""Requests to stop, by SIGINT, SIGTERM or SIGUSR1 (the notice that SLURM sends before a time limit).

A request ends the process at once, except while training defers it to the next safe point, where a
checkpoint is saved first. A second request doesn't wait for one.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.errors import ExitCode, StopRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(StopRequest):
    """A signal asks the process to stop; like KeyboardInterrupt, not an error to handle in a stage.

    Attributes:
        number: The signal.
        urgent: Whether it is a second signal, which asks to stop without saving anything.
        cause: Why, if the process sent the signal to itself; else empty.
        resumption: What is kept and what a re-run does; set by whoever knows.
    """

    def __init__(self, number: int, *, urgent: bool = False, cause: str = "") -> None:
        super().__init__(number)
        self.number = number
        self.urgent = urgent
        self.cause = cause
        self.resumption = ""

    @property
    def exit_code(self) -> ExitCode:
        """130 after SIGINT, 143 after the others."""
        return ExitCode.INTERRUPTED if self.number == signal.SIGINT else ExitCode.PREEMPTED

    def __str__(self) -> str:
        """Return why the process stops, and what is kept."""
        name = signal.Signals(self.number).name
        stopped = "interrupted" if self.number == signal.SIGINT else f"terminated by {name}"
        return f"{self.cause or stopped}; {self.resumption or RESUMPTION}"


RESUMPTION = "finished stages are kept, and re-running the command continues after them"


@dataclass
class _State:
    """Requests of this process.

    Attributes:
        owner: Id of the process whose signals are handled; 0 if none are.
        number: First signal received; 0 without one.
        cause: As in `Stopped`.
        ending: Whether a stop has begun, so that cleaning up must not be cut short.
        raised: The exception that was raised last, until it is caught.
        announce: Told of a deferred request; None while requests are not deferred.
    """

    owner: int = 0
    number: int = 0
    cause: str = ""
    ending: bool = False
    raised: Stopped | None = None
    announce: Callable[[str], None] | None = None


_state = _State()
_RETRY = 2.0
"""Seconds until an exception that was not caught is raised again.

Python drops one that is raised within a destructor, and a library may catch one in passing.
"""


def install() -> None:
    """Handle the signals for the rest of the process. Those that it was started to ignore stay so."""
    _state.__dict__.update(_State(owner=os.getpid()).__dict__)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


@contextmanager
def handled() -> Iterator[None]:
    """Handle the signals within the context, unless they are already or this isn't the main thread."""
    main_thread = threading.current_thread() is threading.main_thread()
    if _state.owner == os.getpid() or not main_thread:
        yield
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    install()
    try:
        yield
    finally:
        _state.__dict__.update(_State().__dict__)
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def deferred(announce: Callable[[str], None]) -> Iterator[None]:
    """Only note the first request within the context; the code there looks for it at safe points.

    Args:
        announce: Told at once that a request was received. Called in another thread, since a
            signal may interrupt the main one within a write.
    """
    before, _state.announce = _state.announce, announce
    try:
        yield
    finally:
        _state.announce = before


@contextmanager
def at_once() -> Iterator[None]:
    """Raise a request as soon as it is received, within `deferred`.

    Raises:
        Stopped: A stop was or is requested.
    """
    before, _state.announce = _state.announce, None
    try:
        check()
        yield
    finally:
        _state.announce = before


def requested() -> int:
    """Return the signal that asks this process to stop; 0 if there is none."""
    return _state.number


def uncaught() -> Stopped | None:
    """Return the exception of a request that was raised and that nobody has caught; None without one.

    Another error may have taken its place: an import that it cut short fails when it is tried again.
    """
    return _state.raised


def check() -> None:
    """Stop if that has been requested.

    Raises:
        Stopped: A stop was requested.
    """
    if _state.number:
        raise begin(_state.number)


def begin(number: int) -> Stopped:
    """Begin a stop: at a safe point, before a checkpoint is saved there, or where one is caught.

    From now on signals no longer interrupt a process that a launcher has started. A launcher
    sends one when the first of its processes has ended, and means it for those that have not.

    Args:
        number: Signal that this process or another one has received.

    Returns:
        The exception to raise.
    """
    _state.ending, _state.raised = True, None
    _state.number = _state.number or number
    return Stopped(number, cause=_state.cause)


def request(cause: str) -> None:
    """Ask this process to stop, as SIGTERM would, from any of its threads."""
    _state.cause = cause
    os.kill(os.getpid(), signal.SIGTERM)


def _handle(number: int, _frame: object) -> None:
    if os.getpid() != _state.owner:  # a fork, such as a worker of a process pool
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    if _state.ending and "LOCAL_RANK" in os.environ:
        return
    lost = _state.raised is not None
    again, _state.number = _state.number != 0 and not lost, _state.number or number
    if again or lost or _state.announce is None:
        _state.raised = Stopped(number, urgent=again, cause=_state.cause)
        retry = threading.Timer(_RETRY, _raise_again, [_state.raised])
        retry.daemon = True
        retry.start()
        raise _state.raised
    name = signal.Signals(number).name
    message = (
        f"{name}: stopping at the next safe point, with a checkpoint; a second signal stops at once"
    )
    threading.Thread(target=_state.announce, args=(message,), daemon=True).start()


def _raise_again(error: Stopped) -> None:
    if _state.raised is error and _state.owner == os.getpid():
        os.kill(os.getpid(), error.number)
