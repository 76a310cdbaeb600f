"""How a stage tells of its progress: to the metrics file, to the terminal, or to nobody."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from rlhfctl.run.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Monitor(Protocol):
    """What a stage reports to. A stage may call `start` again for another phase of its work."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Begin a phase of `total` units of work, such as `steps` or `episodes`."""

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Report that `done` units are done, with the metrics that came with them."""

    def note(self, message: str) -> None:
        """Tell the user one plain line."""

    def warn(self, message: str) -> None:
        """Tell the user one line that asks for attention."""

    def finish(self) -> None:
        """End the phase."""


class NullMonitor:
    """A monitor that tells nobody."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Say nothing."""

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        """Say nothing."""

    def warn(self, message: str) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""


class MultiMonitor:
    """A monitor that tells several others, in order."""

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        self._monitors = tuple(monitors)

    def start(self, stage: str, total: int, unit: str) -> None:
        """Begin a phase in each."""
        for monitor in self._monitors:
            monitor.start(stage, total, unit)

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Report to each."""
        for monitor in self._monitors:
            monitor.step(done, metrics)

    def note(self, message: str) -> None:
        """Tell each."""
        for monitor in self._monitors:
            monitor.note(message)

    def warn(self, message: str) -> None:
        """Tell each."""
        for monitor in self._monitors:
            monitor.warn(message)

    def finish(self) -> None:
        """End the phase in each."""
        for monitor in self._monitors:
            monitor.finish()


class MetricsLog:
    """Appends every step to a file as one JSON object a line: `step`, `time` and the metrics.

    A figure that is NaN or infinite is written as null, since JSON has no word for it.

    Args:
        path: The file; its folder must exist.
        resume: Go on with the file that is there. Lines from the first reported step onwards
            are then dropped, since the resumed stage does that work again.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self._path = path
        self._resuming = resume and path.exists()
        if not self._resuming:
            write_atomic(path, "")

    def start(self, stage: str, total: int, unit: str) -> None:
        """Say nothing: phases are not recorded."""

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Append one line.

        Raises:
            OSError: The file cannot be written.
        """
        if self._resuming:
            self._resuming = False
            kept = [line for line in read_metrics(self._path) if line["step"] < done]
            write_atomic(self._path, "".join(map(_line, kept)))
        entry: dict[str, Any] = {
            "step": done,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        entry.update((name, _finite(value)) for name, value in metrics.items())
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))

    def note(self, message: str) -> None:
        """Say nothing: the file holds metrics."""

    def warn(self, message: str) -> None:
        """Say nothing: the file holds metrics."""

    def finish(self) -> None:
        """Do nothing: every line is on file already."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a metrics file; empty when there is none.

    A last line that a crash cut short is left out.

    Raises:
        ValueError: A line before the last is not JSON.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    complete = [line for line in lines[:-1] if line]
    return [json.loads(line) for line in complete]


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: float) -> float | int | None:
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
