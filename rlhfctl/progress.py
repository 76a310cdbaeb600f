"""Progress of a command: two live lines on a terminal, else a line every few seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from rlhfctl import activity
from rlhfctl.console import LINE_WIDTH, clock, duration, metrics_line, safe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from rich.console import Console, ConsoleOptions, RenderResult

    from rlhfctl.activity import Activity
    from rlhfctl.console import Terminal

PLAIN_INTERVAL = 10.0
"""Seconds between progress lines without a terminal."""
_WIDEST_BAR = 40  # columns
_NARROWEST_BAR = 8
_GAP = 2
_REFRESH = 4  # per second
_FRAMES, _ASCII_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "-\\|/"


@dataclass
class _Progress:
    """The stage, the phase within it, and the work within a step.

    Attributes:
        heading: Position and title of the stage; empty before the first.
        phase: Name of the phase, such as `eval judge`; empty between phases.
        total: Units of the phase.
        unit: Plural noun.
        done: Units done.
        metrics: Newest value per metric.
        work: Work within a step; None if unknown.
        since: Monotonic time at which the stage or phase began.
        first: Time and units of the phase's first report.
        last: Time and units of its newest report.
    """

    heading: str = ""
    phase: str = ""
    total: int = 0
    unit: str = ""
    done: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    work: Activity | None = None
    since: float = 0.0
    first: tuple[float, int] | None = None
    last: tuple[float, int] | None = None

    @property
    def title(self) -> str:
        """Stage and phase: ``[4/4] Evaluation: judge``."""
        if not self.heading:
            return self.phase
        inner = self.phase.partition(" ")[2]
        return f"{self.heading}: {inner}" if inner else self.heading

    def report(self, done: int, age: float = 0.0) -> None:
        """Note that units were done some seconds ago."""
        self.done, self.work = done, None
        self.last = (time.monotonic() - age, done)
        self.first = self.first or self.last

    def seconds_left(self) -> float | None:
        """Return the time that the rest takes at the rate since the first report.

        A resumed stage starts with units that were done before, so that its first report says
        nothing of the rate.
        """
        if self.first is None or self.last is None or self.last[1] <= self.first[1]:
            return None
        rate = (self.last[0] - self.first[0]) / (self.last[1] - self.first[1])
        return max(0.0, rate * (self.total - self.done) - (time.monotonic() - self.last[0]))


class LiveLines:
    """The bar of the current phase, and below it the work within a step and the metrics.

    Every part is shown whole or left out: first the unit goes, then the ETA, then the bar.
    """

    def __init__(self, progress: _Progress) -> None:
        self._progress = progress

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines for a console's width."""
        progress = self._progress
        # One column less: some terminals wrap a line that fills them.
        width = options.max_width - 1
        if progress.phase:
            yield from _bar_line(progress, width)
            yield safe(_second_line(progress, width), "dim")
            return
        frames = _ASCII_FRAMES if options.ascii_only else _FRAMES
        yield Text(f"{frames[int(time.monotonic() * _REFRESH) % len(frames)]} ", end="")
        parts = [progress.title, str(progress.work or ""), clock(time.monotonic() - progress.since)]
        yield safe(_fitting([part for part in parts if part], width - 2))


class View:
    """A monitor that shows progress on a terminal.

    Use it as a context manager, so that the terminal is restored after an error.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._progress = _Progress()
        self._shown_at = time.monotonic()
        self._listening = activity.listening(self._hear)
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._listening.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        self._listening.__exit__(kind, error, trace)

    def begin(self, heading: str) -> None:
        """Show a spinner for a stage until its first phase starts."""
        self._progress = _Progress(heading=heading, since=time.monotonic())
        self._show()

    def start(self, stage: str, total: int, unit: str) -> None:
        """Start a phase with a new bar or line."""
        self._progress = _Progress(
            heading=self._progress.heading,
            phase=stage,
            total=total,
            unit=unit,
            since=time.monotonic(),
        )
        self._show()
        if self._live is None:
            self._plain(f"{stage} 0/{total} {unit}")

    def step(self, done: int, metrics: Mapping[str, float], age: float = 0.0) -> None:
        """Update the bar, or print a line once per `PLAIN_INTERVAL`; `age` is in seconds."""
        self._progress.report(done, age)
        self._progress.metrics.update(metrics)
        if self._live is None and self._is_due():
            self._plain(_plain_line(self._progress))

    def note(self, message: str) -> None:
        """Print a line above the live lines."""
        self._terminal.note(message)

    def warn(self, message: str) -> None:
        """Print a warning above the live lines."""
        self._terminal.warn(message)

    def finish(self) -> None:
        """End the phase and print its last metrics."""
        progress = self._progress
        progress.done = progress.total
        if self._live is not None:
            self._live.refresh()
        self._progress = _Progress(heading=progress.heading, since=time.monotonic())
        if not progress.heading:
            self._stop()
        end = f"  in {duration(time.monotonic() - progress.since)}"
        self._plain(_plain_line(progress, end))

    def _hear(self, work: Activity | None) -> None:
        """Receive the work within a step, from any thread."""
        self._progress.work = work
        if work is not None and self._live is None and self._is_due():
            progress = self._progress
            done = f" {progress.done}/{progress.total} {progress.unit}" if progress.phase else ""
            self._plain(f"{progress.phase or progress.heading}{done}  {work}".strip())

    def _is_due(self) -> bool:
        return time.monotonic() - self._shown_at >= PLAIN_INTERVAL

    def _plain(self, line: str) -> None:
        self._shown_at = time.monotonic()
        self._terminal.note(line)

    def _show(self) -> None:
        """Show the live lines, if the terminal can."""
        if self._terminal.live and self._live is None:
            self._live = Live(
                console=self._terminal.console,
                get_renderable=lambda: LiveLines(self._progress),
                transient=True,
                refresh_per_second=_REFRESH,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        elif self._live is not None:
            self._live.refresh()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def _bar_line(progress: _Progress, width: int) -> RenderResult:
    left = progress.title
    count = f"{progress.done:,}/{progress.total:,}"
    seconds = progress.seconds_left()
    eta = f"ETA {'-:--' if seconds is None else clock(seconds)}"
    for right in (f"{count} {progress.unit}  {eta}", f"{count}  {eta}", count):
        room = width - len(left) - len(right) - 2 * _GAP
        if room >= _NARROWEST_BAR:
            yield Text.assemble(safe(left), " " * _GAP, end="")
            yield ProgressBar(
                total=progress.total, completed=progress.done, width=min(room, _WIDEST_BAR)
            )
            yield Text.assemble(" " * _GAP, safe(right))
            return
    yield safe(_fitting([left, count], width))


def _second_line(progress: _Progress, width: int) -> str:
    work = str(progress.work or "")
    if len(work) > width:
        work = ""
    room = width - (len(work) + _GAP if work else 0)
    metrics = metrics_line(progress.phase, progress.metrics, room)
    return (" " * _GAP).join(part for part in (work, metrics) if part)


def _plain_line(progress: _Progress, end: str = "") -> str:
    line = f"{progress.phase} {progress.done}/{progress.total} {progress.unit}"
    width = LINE_WIDTH - len(line) - _GAP - len(end)
    metrics = metrics_line(progress.phase, progress.metrics, width)
    return f"{line}  {metrics}{end}" if metrics else f"{line}{end}"


def _fitting(parts: list[str], width: int) -> str:
    """Return the first parts that fit, separated; the first one cut if it alone does not."""
    line = parts[0][:width] if parts else ""
    for part in parts[1:]:
        longer = f"{line}{' ' * _GAP}{part}"
        if len(longer) <= width:
            line = longer
    return line
