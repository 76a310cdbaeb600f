"""`report`: render a run, several runs or a sweep, from their folders alone."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.cli.report_format import Format
from rlhfctl.cli.resolve import newest_run
from rlhfctl.errors import EnvironmentFault, UsageError
from rlhfctl.run.directory import SWEEP_FILE
from rlhfctl.run.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.console import Terminal


STDOUT = "-"


@dataclass(frozen=True)
class ReportRequest:
    """What is to be rendered, and as what.

    Attributes:
        runs: Names of runs below `runs_dir`, or paths of run folders; none for the newest run.
        runs_dir: Where runs lie.
        form: HTML, Markdown or JSON.
        output: Where to; None for the place that goes with what is rendered.
    """

    runs: Sequence[str]
    runs_dir: Path
    form: Format
    output: str | None


def report(wanted: ReportRequest, terminal: Terminal) -> None:
    """Render one run or sweep, or several runs side by side, and say where the report is.

    Raises:
        UsageError: There is no such run, or no run at all.
        CheckpointError: A file of a run is damaged.
        EnvironmentFault: The report cannot be written.
    """
    roots = [_root(name, wanted.runs_dir) for name in wanted.runs] or [_newest(wanted.runs_dir)]
    sweeps = [root for root in roots if (root / SWEEP_FILE).is_file()]
    if sweeps and len(roots) > 1:
        raise UsageError(
            "a sweep is reported by itself",
            where=str(sweeps[0]),
            hint=f"give the command for it alone: rlhfctl report {sweeps[0]}",
        )
    text = _rendered(roots, wanted.form, is_sweep=bool(sweeps))
    if wanted.output == STDOUT:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    place = Path(wanted.output) if wanted.output else _place(roots, wanted)
    _write(place, text)
    if terminal.as_json:
        terminal.write_json({"ok": True, "report": str(place), "runs": list(map(str, roots))})
    else:
        terminal.result(str(place))


def _rendered(roots: Sequence[Path], form: Format, *, is_sweep: bool) -> str:
    from rlhfctl.report import comparison, markdown, page, sources, sweep, values

    value: dict[str, Any]
    if is_sweep:
        found = sweep.read(roots[0])
        if form is Format.JSON:
            value = sweep.value(found)
        else:
            return sweep.html(found) if form is Format.HTML else sweep.markdown_text(found)
    elif len(roots) > 1:
        runs = [sources.read_run(root) for root in roots]
        if form is Format.JSON:
            value = comparison.value(runs)
        else:
            html = form is Format.HTML
            return comparison.html(runs) if html else comparison.markdown_text(runs)
    else:
        run = sources.read_run(roots[0])
        if form is Format.JSON:
            value = values.report(run)
        else:
            return page.of(run) if form is Format.HTML else markdown.report(run)
    return json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def _root(name: str, runs_dir: Path) -> Path:
    """Return the folder of a run by its name, else by its path."""
    for root in (runs_dir / name, Path(name)):
        if root.is_dir():
            return root
    raise UsageError(
        "there is no such run",
        where=name,
        hint=f"name a folder in {runs_dir}, or give a run folder's path",
    )


def _newest(runs_dir: Path) -> Path:
    newest = newest_run(runs_dir)
    if newest is None:
        raise UsageError(
            "there is no run to report",
            where=str(runs_dir),
            hint="start one with `rlhfctl run`, or say where runs lie with --runs-dir",
        )
    return newest.root


def _place(roots: Sequence[Path], wanted: ReportRequest) -> Path:
    if len(roots) > 1:
        return wanted.runs_dir / f"comparison.{wanted.form}"
    return roots[0] / f"report.{wanted.form}"


def _write(place: Path, text: str) -> None:
    if place.is_dir():
        raise UsageError("this is a folder", where=str(place), hint="name a file: --output FILE")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, text)
    except OSError as error:
        raise EnvironmentFault(
            f"the report cannot be written: {error.strerror or error}",
            where=str(place),
            hint="choose another place with --output FILE",
        ) from error
