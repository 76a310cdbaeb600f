"""Progress of a run in another process, read from its metrics files."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from rlhfctl.cli.runs_view import as_json
from rlhfctl.cli.summary import headline
from rlhfctl.console import metrics_line
from rlhfctl.errors import ExitCode, RlhfctlError
from rlhfctl.json_text import parse_json
from rlhfctl.progress import View
from rlhfctl.run.listing import overview
from rlhfctl.run.manifest import Manifest
from rlhfctl.run.progress_file import Phase, read_phase
from rlhfctl.stage_table import ALL_STAGES, stage_named

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rlhfctl.console import Terminal
    from rlhfctl.run.directory import RunDirectory

INTERVAL = 1.0
"""Seconds between two reads of the files."""
_WIDTH = 100


@dataclass
class MetricsTail:
    """The lines of a growing metrics file, each read once.

    Attributes:
        path: Metrics file.
        place: Bytes that were read.
    """

    path: Path
    place: int = 0

    def new_lines(self) -> Iterator[tuple[int, float, dict[str, float]]]:
        """Yield step, seconds since it was written, and metrics of complete lines since the last call.

        A file that became shorter, as that of a resumed stage does, is read anew.
        """
        try:
            if self.path.stat().st_size < self.place:
                self.place = 0
            with self.path.open("rb") as file:
                file.seek(self.place)
                content = file.read()
        except OSError:
            return
        complete = content[: content.rfind(b"\n") + 1]
        self.place += len(complete)
        for line in complete.splitlines():
            try:
                entry: dict[str, Any] = parse_json(line.decode("utf-8"))
                step, written = int(entry["step"]), datetime.fromisoformat(entry["time"])
            except (ValueError, KeyError, TypeError):
                continue
            metrics = {
                name: float(value)
                for name, value in entry.items()
                if name != "step" and isinstance(value, int | float)
            }
            yield step, (datetime.now(UTC) - written).total_seconds(), metrics


def follow(directory: RunDirectory, terminal: Terminal) -> None:
    """Show a run's progress until no process has it any more.

    Raises:
        typer.Exit: Ctrl-C.
    """
    if not directory.is_locked():
        print_state(directory, terminal)
        return
    try:
        with View(terminal) as view:
            follower = Follower(directory, view)
            while directory.is_locked():
                follower.refresh()
                time.sleep(INTERVAL)
            follower.refresh()
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    print_state(directory, terminal)


@dataclass
class Follower:
    """Passes what appears in a run's files to a view.

    Attributes:
        directory: Run folder.
        view: Shows the progress.
    """

    directory: RunDirectory
    view: View
    _phase: Phase | None = None
    _tail: MetricsTail | None = None
    _finished: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the stages that were finished before as known."""
        self._finished = self._started_times()

    def refresh(self) -> None:
        """Read what is new, and show it."""
        self._show_finished()
        phase = read_phase(self.directory.progress)
        if phase is None:
            return
        if self._phase is None or phase.heading != self._phase.heading:
            self.view.note(phase.heading)
            self.view.begin(phase.heading)
            self._tail = MetricsTail(self.directory.partial_metrics(phase.stage))
        if phase != self._phase:
            if phase.phase:
                self.view.start(phase.phase, phase.total, phase.unit)
            else:
                self.view.begin(phase.heading)
        self._phase = phase
        if self._tail is not None:
            for step, age, metrics in self._tail.new_lines():
                if phase.phase:
                    self.view.step(step, metrics, age)

    def _show_finished(self) -> None:
        times = self._started_times()
        for name, started in times.items():
            if self._finished.get(name) != started:
                self.view.note(f"{stage_named(name).title}: finished")
        self._finished = times

    def _started_times(self) -> dict[str, str]:
        try:
            stages = Manifest.load(self.directory.manifest).stages
        except RlhfctlError:
            return self._finished
        return {name: record.started for name, record in stages.items()}


def print_state(directory: RunDirectory, terminal: Terminal) -> None:
    """Print a run's stages: those that are finished, and the progress of the one that is running.

    Raises:
        CheckpointError: A metric of the manifest has another type.
    """
    run = overview(directory.root)
    phase = read_phase(directory.progress) if run.state == "running" else None
    last: tuple[int, float, dict[str, float]] | None = None
    if phase is not None:
        for line in MetricsTail(directory.partial_metrics(phase.stage)).new_lines():
            last = line
    if terminal.as_json:
        value = {**as_json(run), "phase": asdict(phase) if phase else None}
        value["step"] = last[0] if last else None
        value["step_metrics"] = last[2] if last else {}
        terminal.write_json({"ok": True, **value})
        return
    terminal.result(f"{directory.name}: {run.state}")
    for stage in ALL_STAGES:
        record = run.manifest.stages.get(stage.name)
        if record is not None:
            first, *_ = [*headline(record, directory.manifest), ""]
            terminal.result(f"  {stage.title}: finished  {first}".rstrip())
    if phase is not None:
        count = f"  {last[0] if last else 0:,}/{phase.total:,} {phase.unit}" if phase.phase else ""
        terminal.result(f"  {phase.heading}: running{count}")
        if last is not None and phase.phase:
            terminal.result(f"    {metrics_line(phase.phase, last[2], _WIDTH)}")
    elif run.state == "interrupted":
        title = stage_named(run.stage).title
        terminal.result(f"  {title}: interrupted; re-running the command resumes it")
