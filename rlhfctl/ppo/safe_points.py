"""Agreement of all processes on saving and stopping at points where training can be left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from rlhfctl.run import stop

if TYPE_CHECKING:
    from rlhfctl.ppo.processes import Processes

_MOST_TIME_FOR_SAVING = 0.05
"""Share of the time that early saves may take."""


class Decision(NamedTuple):
    """Decision at a safe point, the same in all processes.

    Attributes:
        save: Whether a checkpoint is due.
        signal: Signal that asked any process to stop; 0 without one.
    """

    save: bool
    signal: int


class SafePoints:
    """Decisions at each safe point of a stage: whether to save a checkpoint, whether to stop."""

    def __init__(self, processes: Processes, minutes: float | None) -> None:
        """Start the clock.

        Args:
            processes: Processes that train together.
            minutes: Most minutes of work that a kill may lose; None: save only to stop.
        """
        self.processes = processes
        self.seconds = None if minutes is None else 60.0 * minutes
        self.start()

    def start(self) -> None:
        """Start the clock: nothing that is worth saving has happened before."""
        self._saved_at = self._reached_at = time.monotonic()
        self._longest = self._save_seconds = 0.0

    def reached(self) -> Decision:
        """Return what to do here. All processes must call this at the same points.

        A checkpoint is due if work would exceed the limit by the next point, judged by the longest
        time between two points so far. Where that is itself near the limit, saving must not take
        more than a small share of the time.
        """
        now = time.monotonic()
        self._longest = max(self._longest, now - self._reached_at)
        self._reached_at = now
        since = now - self._saved_at
        save = self.seconds is not None and (
            since >= self.seconds
            or (
                since + self._longest >= self.seconds
                and since * _MOST_TIME_FOR_SAVING >= self._save_seconds
            )
        )
        number, due = self.processes.max([stop.requested(), save])
        if number:
            stop.begin(int(number))
        return Decision(bool(due), int(number))

    def saved(self) -> None:
        """Restart the clock after a save that began when the present point was reached."""
        now = time.monotonic()
        self._save_seconds = now - self._reached_at
        self._saved_at = self._reached_at = now


def stop_together(processes: Processes) -> None:
    """Stop if any process has been asked to. All processes must call this at the same points.

    Raises:
        Stopped: One was asked to stop.
    """
    (number,) = processes.max([stop.requested()])
    if number:
        raise stop.begin(int(number))
