"""Metrics to wandb, mlflow, trackio or TensorBoard, through accelerate's trackers.

A tracker is company, never a condition: one that fails is told of once and left out from then on.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rlhfctl.run.monitor import Monitor


class TrackerMonitor:
    """A monitor that hands every step's metrics to trackers, named STAGE/FIGURE.

    Args:
        names: Trackers as accelerate knows them.
        run_name: The run's name there.
        folder: Where trackers that write files put them.
        settings: The recipe's leaves by dotted key, kept as the run's configuration.
        told: Hears of a tracker that failed.
    """

    def __init__(
        self,
        names: Sequence[str],
        run_name: str,
        folder: Path,
        settings: Mapping[str, Any],
        told: Monitor,
    ) -> None:
        self._names = tuple(names)
        self._run_name = run_name
        self._folder = folder
        self._settings = {
            key: value if isinstance(value, str | int | float | bool) else str(value)
            for key, value in settings.items()
        }
        self._told = told
        self._stage = ""
        self._trackers: dict[str, Any] = {}

    def start(self, stage: str, total: int, unit: str) -> None:
        """Open the trackers when the first phase begins."""
        self._stage = stage
        for name in self._names:
            if name not in self._trackers:
                self._guarded(name, partial(self._open, name))

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Hand on the metrics."""
        named = {f"{self._stage}/{key}": value for key, value in metrics.items()}
        for name, tracker in tuple(self._trackers.items()):
            if tracker is not None:
                self._guarded(name, partial(tracker.log, named, step=done))

    def note(self, message: str) -> None:
        """Say nothing."""

    def warn(self, message: str) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing: a stage may begin another phase."""

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

    def _guarded(self, name: str, act: Callable[[], object]) -> None:
        """Do something with a tracker; whatever its service throws must not end a run."""
        try:
            act()
        except Exception as error:
            self._trackers[name] = None
            self._told.warn(f"tracker {name} is left out: {type(error).__name__}: {error}")
