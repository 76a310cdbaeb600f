"""Terminal output: progress, notes, errors and results, as text or JSON.

Progress and notes go to stderr, results to stdout. Text from models, data or file names is
printed through `safe` only.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.console import Console, ConsoleDimensions
from rich.live import Live
from rich.text import Text

from rlhfctl.run.text import visible
from rlhfctl.stage_table import ALL_STAGES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from rich.console import RenderableType

TERMINAL = "RLHFCTL_TERMINAL"
"""Environment variable: descriptor of the user's stderr if 2 is redirected at startup."""
JSON_VERSION = 1
"""Version of what `--json` prints; raised when a field is renamed, removed or changes its meaning."""
LINE_WIDTH = 80
"""Columns of a progress line; metrics that do not fit are in the metrics file only."""

_LABELS = {
    "token_accuracy": "token accuracy",
    "kl": "KL",
    "held_out_true_reward": "held-out",
    "tokens_per_second": "tokens/s",
    "episodes_per_second": "episodes/s",
    "memory_bytes": "memory",
}

_log = logging.getLogger("rlhfctl")
_log.addHandler(logging.NullHandler())


def safe(text: str, style: str = "") -> Text:
    """Return text that is safe to print: control and bidi characters escaped, markup ignored."""
    return Text(visible(text), style=style)


class Terminal:
    """Standard output and standard error of a command.

    Create it before library output is redirected to the log file: it keeps a copy of stderr.

    Args:
        quiet: Print only the result and errors.
        as_json: Print one JSON object to stdout, notes and errors to stderr, and no result for people.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self._stream = _stderr_copy()
        self._err = _console(self._stream)

    @property
    def stream(self) -> TextIO:
        """The user's stderr, even while descriptor 2 is redirected."""
        return self._stream

    @property
    def console(self) -> Console:
        """Console of notes and progress."""
        return self._err

    @property
    def live(self) -> bool:
        """Return whether stderr is an interactive terminal with cursor control."""
        return (
            not self.quiet
            and self._stream.isatty()
            and not self._err.is_dumb_terminal
            and not os.environ.get("CI")
        )

    def note(self, message: str) -> None:
        """Print a line to stderr, unless quiet."""
        if not self.quiet:
            self._err.print(safe(message), soft_wrap=True)

    def warn(self, message: str) -> None:
        """Log a warning; print it to stderr unless quiet."""
        _log.warning("%s", visible(message))
        if not self.quiet:
            self._err.print(safe("warning: ", "yellow"), safe(message), sep="", soft_wrap=True)

    def error(self, message: str) -> None:
        """Print an error to stderr, even if quiet."""
        self._err.print(safe("error: ", "bold red"), safe(message), sep="", soft_wrap=True)

    def traceback(self, text: str) -> None:
        """Print a traceback to stderr."""
        self._err.print(safe(text), soft_wrap=True)

    def result(self, *parts: RenderableType) -> None:
        """Print the result to stdout, unless its JSON takes its place."""
        if self.as_json:
            return
        console = _console(sys.stdout)
        for part in parts:
            console.print(safe(part) if isinstance(part, str) else part, soft_wrap=True)

    def write_json(self, value: Mapping[str, Any]) -> None:
        """Write the JSON object of a `--json` command as one line to stdout.

        Args:
            value: Fields of the object, besides those of every command (docs/reference/json.md).

        Raises:
            ValueError: A number is NaN or infinite.
        """
        common = {"schema_version": JSON_VERSION, "ok": True, "errors": []}
        sys.stdout.write(json.dumps({**common, **value}, allow_nan=False) + "\n")
        sys.stdout.flush()


class Board:
    """Live status of several processes, one line each; shown on a terminal only.

    Use it as a context manager, so that the terminal is restored after an error.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._live = Live(
            console=terminal.console,
            transient=True,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._shown = terminal.live

    def __enter__(self) -> Self:
        if self._shown:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, title: str, lines: Mapping[str, str]) -> None:
        """Show the last line of each process, after the title."""
        if self._shown:
            rows = [safe(f"{title} {name}  {line}") for name, line in lines.items()]
            self._live.update(Text("\n").join(rows))


def metrics_line(stage: str, metrics: Mapping[str, float], width: int) -> str:
    """Return a stage's progress metrics, for example ``loss 1.23  token accuracy 0.71``.

    Args:
        stage: Stage name, which may be followed by a phase, for example ``eval judge``.
        metrics: Newest value per metric; the first four if the stage declares none of them.
        width: Columns available; the metrics that come first are shown.
    """
    stage_name = stage.split(" ", maxsplit=1)[0]
    declared = [name for row in ALL_STAGES if row.name == stage_name for name in row.progress]
    names = [name for name in declared if name in metrics] or list(metrics)[:4]
    line = ""
    for name in names:
        label = _LABELS.get(name, visible(name).replace("_", " "))
        longer = f"{line}  {label} {format_metric(name, metrics[name])}".lstrip()
        if len(longer) > width:
            break
        line = longer
    return line


def format_metric(name: str, value: float | None) -> str:
    """Return a metric with three significant digits, and memory in GiB."""
    if value is None or not math.isfinite(value):
        return "none" if value is None else str(float(value))
    if name.endswith("_bytes"):
        return f"{value / 2**30:.2f} GiB"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Return a duration as ``42 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02d} min"


def clock(seconds: float) -> str:
    """Return a duration as ``0:42``, ``3:05`` or ``2:07:00``, which changes by the second."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _StreamConsole(Console):
    """A console with the size of its own stream's terminal.

    Rich asks stdin, stdout and stderr, which can be files while this stream is a terminal.
    """

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines; COLUMNS and LINES win."""
        dimensions = super().size
        if self._width is not None or not self.is_terminal or self.is_dumb_terminal:
            return dimensions
        try:
            columns, lines = os.get_terminal_size(self.file.fileno())
        except (OSError, ValueError):
            return dimensions
        # A pseudo-terminal whose size was never set has none.
        return ConsoleDimensions(columns, lines) if columns and lines else dimensions

    @size.setter
    def size(self, dimensions: tuple[int, int]) -> None:
        self._width, self._height = dimensions


def _console(stream: TextIO) -> Console:
    return _StreamConsole(file=stream, markup=False, highlight=False, emoji=False)


def _stderr_copy() -> TextIO:
    try:
        descriptor = os.dup(int(os.environ.get(TERMINAL, "2")))
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
