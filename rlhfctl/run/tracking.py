"""Logging of metrics to wandb, mlflow, trackio or TensorBoard.

Trackers are optional: one that fails is reported once and disabled, and one that hangs delays the
run by seconds.
"""

from __future__ import annotations

import threading
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from rlhfctl.run import stop
from rlhfctl.run.trackers import open_tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rlhfctl.run.monitor import Monitor
    from rlhfctl.run.trackers import Address, Conclusion, Setting, Tracker

START_TIMEOUT = 10.0
"""Seconds that a tracker may delay the run when it starts."""
_FINISH_TIMEOUT = 30.0
_FINISH_TIMEOUT_WHEN_STOPPING = 3.0
_MOST_WAITING = 10_000  # calls


class _TrackerCalls:
    """Calls of one tracker, made in order in a thread of their own.

    Some trackers keep their run in a variable of the thread, so that one makes all calls.

    Attributes:
        failed: Whether a call has failed; later ones are dropped.
    """

    def __init__(self, name: str, monitor: Monitor) -> None:
        self._name = name
        self._monitor = monitor
        self._waiting: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self.failed = False
        threading.Thread(target=self._work, daemon=True).start()

    def add(self, call: Callable[[], object]) -> None:
        """Make a call when those before are done; dropped where a hanging one keeps many waiting."""
        if not self.failed and self._waiting.qsize() < _MOST_WAITING:
            self._waiting.put(partial(self._guarded, call))

    def finished_within(self, seconds: float) -> bool:
        """Wait until all calls are done; return whether they are."""
        done = threading.Event()
        self._waiting.put(done.set)
        return done.wait(seconds)

    def _work(self) -> None:
        while True:
            self._waiting.get()()

    def _guarded(self, call: Callable[[], object]) -> None:
        """Call a tracker; its errors must not end the run."""
        if self.failed:
            return
        try:
            call()
        except Exception as error:
            self.failed = True
            self._monitor.warn(f"tracker {self._name} is disabled: {type(error).__name__}: {error}")


class TrackerMonitor:
    """A monitor that logs every step's metrics to trackers, as STAGE/METRIC.

    Args:
        names: Names of trackers.
        address: Project, run and stage.
        settings: Recipe values by dotted key, logged as the run's configuration.
        monitor: Receives a warning when a tracker fails or hangs.
    """

    def __init__(
        self,
        names: Sequence[str],
        address: Address,
        settings: Mapping[str, Any],
        monitor: Monitor,
    ) -> None:
        self._names = tuple(names)
        self._address = address
        self._settings: dict[str, Setting] = {
            key: value if isinstance(value, str | int | float | bool) else str(value)
            for key, value in settings.items()
        }
        self._monitor = monitor
        self._stage = ""
        self._trackers: dict[str, Tracker] = {}
        self._calls: dict[str, _TrackerCalls] = {}

    def begin(self, heading: str) -> None:
        """Do nothing: trackers are opened with the first phase."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Open the trackers when the first phase begins, for `START_TIMEOUT` at most."""
        self._stage = stage
        for name in self._names:
            if name in self._calls:
                continue
            calls = self._calls[name] = _TrackerCalls(name, self._monitor)
            calls.add(partial(self._open, name))
            if not calls.finished_within(START_TIMEOUT):
                self._monitor.warn(
                    f"tracker {name} has not started within {START_TIMEOUT:g} s; the run goes on, "
                    "and metrics are sent when it answers"
                )

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics, if there are any."""
        if not metrics:
            return
        named = {f"{self._stage}/{key}": value for key, value in metrics.items()}
        for name, calls in self._calls.items():
            calls.add(partial(self._log, name, named, done))

    def note(self, message: str) -> None:
        """Do nothing."""

    def warn(self, message: str) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing: a stage may begin another phase."""

    def conclude(self, conclusion: Conclusion) -> None:
        """Log the result of the finished stage; call before `close`."""
        for name, calls in self._calls.items():
            calls.add(partial(self._conclude, name, conclusion))

    def close(self) -> None:
        """Close the trackers, and wait for those that answer."""
        limit = _FINISH_TIMEOUT_WHEN_STOPPING if stop.requested() else _FINISH_TIMEOUT
        for name, calls in self._calls.items():
            started = name in self._trackers
            calls.add(partial(self._finish, name))
            if started and not calls.finished_within(limit):
                self._monitor.warn(f"tracker {name} has not finished within {limit:g} s")

    def _open(self, name: str) -> None:
        tracker = open_tracker(name, self._address)
        tracker.configure(self._settings)
        self._trackers[name] = tracker

    def _log(self, name: str, metrics: Mapping[str, float], step: int) -> None:
        self._trackers[name].log(metrics, step)

    def _conclude(self, name: str, conclusion: Conclusion) -> None:
        self._trackers[name].conclude(conclusion)

    def _finish(self, name: str) -> None:
        self._trackers[name].finish()
