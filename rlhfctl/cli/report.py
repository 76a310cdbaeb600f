"""The `report` command: render a run, several runs, a sweep or a comparison of methods."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.cli.report_format import ReportFormat
from rlhfctl.cli.resolve import newest_run
from rlhfctl.errors import EnvironmentFault, UsageError
from rlhfctl.run.directory import LATEST_LINK, METHODS_FILE, SWEEP_FILE, linked_run
from rlhfctl.run.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.console import Terminal


STDOUT = "-"


@dataclass(frozen=True)
class ReportRequest:
    """Runs to render, format and destination.

    Attributes:
        runs: Names of runs in `runs_dir`, or run folders; empty for the newest run.
        runs_dir: Directory for runs.
        report_format: HTML, Markdown or JSON.
        output: File, or ``-`` for stdout; None for a file in the run folder.
    """

    runs: Sequence[str]
    runs_dir: Path
    report_format: ReportFormat
    output: str | None


def write_report(request: ReportRequest, terminal: Terminal) -> None:
    """Render one run or sweep, or several runs side by side, and print the path of the report.

    Raises:
        UsageError: A run does not exist, or there are no runs.
        CheckpointError: A file of a run is damaged.
        EnvironmentFault: The report cannot be written.
    """
    if request.output == STDOUT and terminal.as_json:
        raise UsageError(
            "--json and --output - both print to stdout",
            hint="leave --json out; --format json --output - prints the report's own values",
        )
    roots = [_root(name, request.runs_dir) for name in request.runs] or [_newest(request.runs_dir)]
    sweeps = [root for root in roots if _file_of_runs(root) is not None]
    if sweeps and len(roots) > 1:
        is_sweep = _file_of_runs(sweeps[0]) == SWEEP_FILE
        raise UsageError(
            f"a {'sweep' if is_sweep else 'comparison of methods'} cannot be combined with other "
            "runs",
            where=str(sweeps[0]),
            hint=f"run `rlhfctl report {sweeps[0]}`",
        )
    text = _rendered(roots, request.report_format)
    if request.output == STDOUT:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    path = Path(request.output) if request.output else _default_path(roots, request)
    _write(path, text)
    if terminal.as_json:
        terminal.write_json({"ok": True, "report": str(path), "runs": list(map(str, roots))})
    else:
        terminal.result(str(path))


def _file_of_runs(root: Path) -> str | None:
    """Return the name of the file that makes a folder one of many runs; None without it."""
    return next((name for name in (SWEEP_FILE, METHODS_FILE) if (root / name).is_file()), None)


def _rendered(roots: Sequence[Path], report_format: ReportFormat) -> str:
    from rlhfctl.report import comparison, markdown, methods, page, sources, sweep, values

    value: dict[str, Any]
    file_of_runs = _file_of_runs(roots[0])
    if file_of_runs == METHODS_FILE:
        methods_report = methods.read(roots[0])
        if report_format is ReportFormat.JSON:
            value = methods.value(methods_report)
        else:
            return (
                methods.html(methods_report)
                if report_format is ReportFormat.HTML
                else methods.markdown_text(methods_report)
            )
    elif file_of_runs == SWEEP_FILE:
        sweep_report = sweep.read(roots[0])
        if report_format is ReportFormat.JSON:
            value = sweep.value(sweep_report)
        else:
            return (
                sweep.html(sweep_report)
                if report_format is ReportFormat.HTML
                else sweep.markdown_text(sweep_report)
            )
    elif len(roots) > 1:
        runs = [sources.read_run(root) for root in roots]
        if report_format is ReportFormat.JSON:
            value = comparison.value(runs)
        else:
            html = report_format is ReportFormat.HTML
            return comparison.html(runs) if html else comparison.markdown_text(runs)
    else:
        run = sources.read_run(roots[0])
        if report_format is ReportFormat.JSON:
            value = values.report(run)
        else:
            return page.of(run) if report_format is ReportFormat.HTML else markdown.report(run)
    return json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def _root(name: str, runs_dir: Path) -> Path:
    """Return the folder of a run, by name or by path."""
    if name == LATEST_LINK:
        name = linked_run(runs_dir) or name
    for root in (runs_dir / name, Path(name)):
        if root.is_dir():
            return root
    raise UsageError(
        "run not found",
        where=name,
        hint=f"pass the name of a folder in {runs_dir}, or the path of a run folder",
    )


def _newest(runs_dir: Path) -> Path:
    newest = newest_run(runs_dir)
    if newest is None:
        raise UsageError(
            "no runs found",
            where=str(runs_dir),
            hint="start one with `rlhfctl run`, or set --runs-dir",
        )
    return newest.root


def _default_path(roots: Sequence[Path], request: ReportRequest) -> Path:
    if len(roots) > 1:
        return request.runs_dir / f"comparison.{request.report_format}"
    return roots[0] / f"report.{request.report_format}"


def _write(path: Path, text: str) -> None:
    if path.is_dir():
        raise UsageError(
            "is a folder, not a file", where=str(path), hint="pass a file name to --output"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot write the report: {error.strerror or error}",
            where=str(path),
            hint="choose another file with --output",
        ) from error
