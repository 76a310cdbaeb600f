"""Progress monitors: the protocol, a metrics file, a fan-out and a no-op."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from rlhfctl.json_text import parse_json
from rlhfctl.run.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Monitor(Protocol):
    """Receiver of a stage's progress. A stage may call `start` once per phase."""

    def begin(self, heading: str) -> None:
        """Begin a stage; the heading has its position and title, such as ``[2/4] Reward model``."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Begin a phase of `total` units of work, such as `steps` or `episodes`."""

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Report that `done` units are done, with their metrics if there are any."""

    def note(self, message: str) -> None:
        """Show the user a message of one line."""

    def warn(self, message: str) -> None:
        """Show the user a warning of one line."""

    def finish(self) -> None:
        """End the phase."""


class NullMonitor:
    """A monitor that does nothing."""

    def begin(self, heading: str) -> None:
        """Do nothing."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Do nothing."""

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def note(self, message: str) -> None:
        """Do nothing."""

    def warn(self, message: str) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


class MultiMonitor:
    """A monitor that forwards to several others, in order."""

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        self._monitors = tuple(monitors)

    def begin(self, heading: str) -> None:
        """Begin a stage in every monitor."""
        for monitor in self._monitors:
            monitor.begin(heading)

    def start(self, stage: str, total: int, unit: str) -> None:
        """Begin a phase in every monitor."""
        for monitor in self._monitors:
            monitor.start(stage, total, unit)

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Report to every monitor."""
        for monitor in self._monitors:
            monitor.step(done, metrics)

    def note(self, message: str) -> None:
        """Show the message in every monitor."""
        for monitor in self._monitors:
            monitor.note(message)

    def warn(self, message: str) -> None:
        """Show the warning in every monitor."""
        for monitor in self._monitors:
            monitor.warn(message)

    def finish(self) -> None:
        """End the phase in every monitor."""
        for monitor in self._monitors:
            monitor.finish()


class MetricsLog:
    """Appends one JSON object per step to a file: `step`, `time` and the metrics.

    NaN and infinite metrics are written as null, since JSON cannot represent them.

    Args:
        path: Metrics file; its folder must exist.
        resume: Append to an existing file. Lines from the first reported step onwards are then
            dropped, since the resumed stage repeats those steps.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self._path = path
        self._resuming = resume and path.exists()
        if not self._resuming:
            write_atomic(path, "")

    def begin(self, heading: str) -> None:
        """Do nothing: the file is a stage's."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Do nothing: phases are not recorded."""

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Append one line; a step without metrics, such as of encoding, has none to record.

        Raises:
            OSError: The file cannot be written.
        """
        if not metrics:
            return
        if self._resuming:
            self._resuming = False
            earlier_lines = [line for line in read_metrics(self._path) if line["step"] < done]
            write_atomic(self._path, "".join(map(_line, earlier_lines)))
        entry: dict[str, Any] = {
            "step": done,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        entry.update((name, _finite(value)) for name, value in metrics.items())
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))

    def note(self, message: str) -> None:
        """Do nothing: the file holds metrics only."""

    def warn(self, message: str) -> None:
        """Do nothing: the file holds metrics only."""

    def finish(self) -> None:
        """Do nothing: every line is written already."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a metrics file; return an empty list if it does not exist.

    A last line truncated by a crash is ignored.

    Raises:
        ValueError: A line before the last is not JSON.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    complete = [line for line in lines[:-1] if line]
    return [parse_json(line) for line in complete]


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: float) -> float | int | None:
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
