"""Logging of metrics to wandb, mlflow, trackio or TensorBoard, through accelerate.

Trackers are optional: a failing one is reported once and disabled.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rlhfctl.run.monitor import Monitor


class TrackerMonitor:
    """A monitor that logs every step's metrics to trackers, as STAGE/METRIC.

    Args:
        names: Tracker names of accelerate.
        run_name: Name of the run in the trackers.
        folder: Folder for trackers that write files.
        settings: Recipe values by dotted key, logged as the run's configuration.
        monitor: Receives a warning when a tracker fails.
    """

    def __init__(
        self,
        names: Sequence[str],
        run_name: str,
        folder: Path,
        settings: Mapping[str, Any],
        monitor: Monitor,
    ) -> None:
        self._names = tuple(names)
        self._run_name = run_name
        self._folder = folder
        self._settings = {
            key: value if isinstance(value, str | int | float | bool) else str(value)
            for key, value in settings.items()
        }
        self._monitor = monitor
        self._stage = ""
        self._trackers: dict[str, Any] = {}

    def start(self, stage: str, total: int, unit: str) -> None:
        """Open the trackers when the first phase begins."""
        self._stage = stage
        for name in self._names:
            if name not in self._trackers:
                self._guarded(name, partial(self._open, name))

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics."""
        named = {f"{self._stage}/{key}": value for key, value in metrics.items()}
        for name, tracker in tuple(self._trackers.items()):
            if tracker is not None:
                self._guarded(name, partial(tracker.log, named, step=done))

    def note(self, message: str) -> None:
        """Do nothing."""

    def warn(self, message: str) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing: a stage may begin another phase."""

    def close(self) -> None:
        """Close the trackers."""
        for name, tracker in tuple(self._trackers.items()):
            if tracker is not None:
                self._guarded(name, tracker.finish)

    def _open(self, name: str) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        kind = LOGGER_TYPE_TO_CLASS[name]
        extra = {"logging_dir": str(self._folder)} if kind.requires_logging_directory else {}
        tracker = kind(self._run_name, **extra)
        tracker.start()
        tracker.store_init_configuration(self._settings)
        self._trackers[name] = tracker

    def _guarded(self, name: str, action: Callable[[], object]) -> None:
        """Call a tracker; its errors must not end the run."""
        try:
            action()
        except Exception as error:
            self._trackers[name] = None
            self._monitor.warn(f"tracker {name} is disabled: {type(error).__name__}: {error}")
