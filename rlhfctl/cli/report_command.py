"""The `report` command.

Annotations are not postponed here: Typer reads the types when a command is registered.
"""

from pathlib import Path
from typing import Annotated

import typer

from rlhfctl.cli.options import DEFAULT_RUNS_DIR, DebugOption, JsonOption, QuietOption
from rlhfctl.cli.report_format import ReportFormat


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            show_default=False,
            help="Run names or run folders; several are compared. Default: the newest run.",
        ),
    ] = None,
    runs_dir: Annotated[
        Path, typer.Option("--runs-dir", metavar="DIR", help="Directory for runs.")
    ] = DEFAULT_RUNS_DIR,
    report_format: Annotated[
        ReportFormat, typer.Option("--format", help="HTML page, Markdown or JSON.")
    ] = ReportFormat.HTML,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="Output file; - for stdout. Default: report.html in the run folder, or "
            "comparison.html in the directory for runs.",
        ),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Render a run, several runs or a sweep as a report."""
    from rlhfctl.cli.report import ReportRequest, write_report
    from rlhfctl.console import Terminal

    request = ReportRequest(runs or [], runs_dir, report_format, output)
    write_report(request, Terminal(quiet=quiet, as_json=json))
