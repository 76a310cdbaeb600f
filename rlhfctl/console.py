"""How progress, notes, errors and results look: for people, for pipes, and as JSON.

Progress and notes go to stderr, results to stdout. Text from models, data or file names reaches a
terminal only through `safe`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from rlhfctl.run.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from rich.console import RenderableType

TERMINAL = "RLHFCTL_TERMINAL"
"""Names the descriptor of the user's stderr, where 2 leads elsewhere from the start."""
PLAIN_INTERVAL = 10.0  # seconds between progress lines where there is no terminal

_SHOWN = {
    "sft": ("loss", "token_accuracy", "eval_loss", "tokens_per_second", "memory_bytes"),
    "rm": ("loss", "accuracy", "margin", "tokens_per_second", "memory_bytes"),
    "ppo": (
        *("score", "kl", "held_out_true_reward", "reward", "response_length"),
        *("episodes_per_second", "memory_bytes"),
    ),
    "eval": ("proxy", "gold", "kl", "length"),
}
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
    """Return text as rich may show it: control and bidi characters visible, markup not read."""
    return Text(visible(text), style=style)


class Terminal:
    """The user's side of a command.

    It keeps a copy of stderr from before the libraries' output is turned to the log file, so one
    must be made before that.

    Args:
        quiet: Show errors and the final result only.
        as_json: The result is one JSON object on stdout; everything else goes to stderr.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self._stream = _stderr_copy()
        self._err = _console(self._stream)

    @property
    def stream(self) -> TextIO:
        """The user's stderr, wherever descriptor 2 leads meanwhile."""
        return self._stream

    @property
    def console(self) -> Console:
        """Where notes and progress are shown."""
        return self._err

    @property
    def live(self) -> bool:
        """Whether someone watches: stderr is a terminal that can move its cursor."""
        return (
            not self.quiet
            and self._stream.isatty()
            and not self._err.is_dumb_terminal
            and not os.environ.get("CI")
        )

    def note(self, message: str) -> None:
        """Show one plain line on stderr, unless quiet."""
        if not self.quiet:
            self._err.print(safe(message), soft_wrap=True)

    def warn(self, message: str) -> None:
        """Show one line that asks for attention, unless quiet; the log has it in any case."""
        _log.warning("%s", visible(message))
        if not self.quiet:
            self._err.print(safe("warning: ", "yellow"), safe(message), sep="", soft_wrap=True)

    def error(self, message: str) -> None:
        """Show why the command ends, quiet or not."""
        self._err.print(safe("error: ", "bold red"), safe(message), sep="", soft_wrap=True)

    def traceback(self, text: str) -> None:
        """Show a traceback on stderr."""
        self._err.print(safe(text), soft_wrap=True)

    def result(self, *parts: RenderableType) -> None:
        """Show a command's result to people: on stdout, or on stderr where stdout is for JSON."""
        console = self._err if self.as_json else _console(sys.stdout)
        for part in parts:
            console.print(safe(part) if isinstance(part, str) else part, soft_wrap=True)

    def write_json(self, value: Any) -> None:
        """Write the one JSON object of a `--json` command, a line on stdout.

        Raises:
            ValueError: A number in it is NaN or infinite.
        """
        sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
        sys.stdout.flush()

    def view(self) -> View:
        """Return a monitor that shows the stages' progress here."""
        return View(self, self._err)


class View:
    """A monitor for people: a live bar on a terminal, else a plain line now and then.

    Use it as a context manager, so that the terminal is left in order however a stage ends.
    """

    def __init__(self, terminal: Terminal, console: Console) -> None:
        self._terminal = terminal
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._stage = ""
        self._unit = ""
        self._total = 0
        self._done = 0
        self._metrics: dict[str, float] = {}
        self._began = 0.0
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def start(self, stage: str, total: int, unit: str) -> None:
        """Begin a phase: a new bar, or a line that says so."""
        self._stop()
        self._stage, self._total, self._unit = stage, total, unit
        self._done, self._metrics = 0, {}
        self._began = self._shown_at = time.monotonic()
        if self._terminal.live:
            self._progress = _progress(self._console)
            self._task = self._progress.add_task(
                visible(stage), total=total, unit=visible(unit), metrics=""
            )
            self._progress.start()
        else:
            self._terminal.note(f"{stage} 0/{total} {unit}")

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Move the bar, or print a line if the last is some seconds old."""
        self._done = done
        self._metrics.update(metrics)
        if self._progress is not None:
            text = metrics_line(self._stage, self._metrics)
            self._progress.update(self._task, completed=done, metrics=text)
        elif time.monotonic() - self._shown_at >= PLAIN_INTERVAL:
            self._shown_at = time.monotonic()
            self._terminal.note(self._line())

    def note(self, message: str) -> None:
        """Show one line above the bar."""
        self._terminal.note(message)

    def warn(self, message: str) -> None:
        """Show one line above the bar that asks for attention."""
        self._terminal.warn(message)

    def finish(self) -> None:
        """End the phase with a line that stays."""
        self._stop()
        self._done = self._total
        self._terminal.note(f"{self._line()}  in {duration(time.monotonic() - self._began)}")

    def _line(self) -> str:
        line = f"{self._stage} {self._done}/{self._total} {self._unit}"
        metrics = metrics_line(self._stage, self._metrics)
        return f"{line}  {metrics}" if metrics else line

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class Board:
    """What several processes are doing, a line each below the notes; only on a terminal.

    Use it as a context manager, so that the terminal is left in order however the work ends.
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
        """Show the title, and below it each process with what it said last."""
        if self._shown:
            rows = [safe(f"{title} {name}  {line}") for name, line in lines.items()]
            self._live.update(Text("\n").join(rows))


def metrics_line(stage: str, metrics: Mapping[str, float]) -> str:
    """Return the metrics worth watching in a stage, as ``loss 1.23  token accuracy 0.71``."""
    wanted = [name for name in _SHOWN.get(stage.split(" ", maxsplit=1)[0], ()) if name in metrics]
    names = wanted or list(metrics)[:4]
    return "  ".join(
        f"{_LABELS.get(name, visible(name).replace('_', ' '))} {format_figure(name, metrics[name])}"
        for name in names
    )


def format_figure(name: str, value: float | None) -> str:
    """Return a figure with three digits, and memory in GiB."""
    if value is None or not math.isfinite(value):
        return "none" if value is None else str(float(value))
    if name.endswith("_bytes"):
        return f"{value / 2**30:.2f} GiB"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Return a duration as ``42 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[metrics]}", markup=False),
        console=console,
        transient=True,
        refresh_per_second=4,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _console(stream: TextIO) -> Console:
    return Console(file=stream, markup=False, highlight=False, emoji=False)


def _stderr_copy() -> TextIO:
    try:
        descriptor = os.dup(int(os.environ.get(TERMINAL, "2")))
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
