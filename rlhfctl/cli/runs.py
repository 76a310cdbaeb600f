"""The `runs` commands: list, show, compare and remove runs.

Annotations are not postponed here: Typer reads the types when a command is registered.
"""

from typing import Annotated

import typer

from rlhfctl.cli.help import Group, example
from rlhfctl.cli.options import (
    DEFAULT_RUNS_DIR,
    DebugOption,
    JsonOption,
    QuietOption,
    RunsDirOption,
)
from rlhfctl.errors import UsageError

app = typer.Typer(
    cls=Group,
    help="List, show, compare and remove runs; without a command, list them.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _runs(
    context: typer.Context,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """List, show, compare and remove runs; without a command, list them."""
    if context.invoked_subcommand is None:
        list_runs(runs_dir, json, quiet, debug)
    elif runs_dir != DEFAULT_RUNS_DIR or quiet or json or debug:
        raise UsageError(
            "an option stands before the command",
            where=f"rlhfctl runs ... {context.invoked_subcommand}",
            hint=f"write rlhfctl runs {context.invoked_subcommand} first, then the options",
        )


@app.command("list", epilog=example("rlhfctl runs list --json"))
def list_runs(
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """List the runs with state, stage, main metrics and size, the newest first."""
    from rlhfctl.cli.runs_view import show_list
    from rlhfctl.console import Terminal

    show_list(runs_dir, Terminal(quiet=quiet, as_json=json))


@app.command("show", epilog=example("rlhfctl runs show first"))
def show_run(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            show_default=False,
            help="Run name or run folder. Default: the newest run.",
        ),
    ] = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Show one run: its state, its verdict, and the main metrics of each stage."""
    from rlhfctl.cli.runs_view import show_one
    from rlhfctl.console import Terminal

    show_one(run, runs_dir, Terminal(quiet=quiet, as_json=json))


@app.command("diff", epilog=example("rlhfctl runs diff first second"))
def diff(
    first: Annotated[str, typer.Argument(metavar="RUN", help="Run name or run folder.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The run to compare it with.")],
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    every_metric: Annotated[
        bool, typer.Option("--all", help="Compare every metric, not only the main ones.")
    ] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare the settings and the metrics of two runs."""
    from rlhfctl.cli.runs_diff import show_differences
    from rlhfctl.console import Terminal

    terminal = Terminal(quiet=quiet, as_json=json)
    show_differences((first, second), runs_dir, terminal, every_metric=every_metric)


@app.command("rm", epilog=example("rlhfctl runs rm first --yes"))
def remove(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="Names of runs.")],
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Remove runs, after asking. A run that a process is using is refused."""
    from rlhfctl.cli.runs_view import remove_runs
    from rlhfctl.console import Terminal

    remove_runs(runs, runs_dir, Terminal(quiet=quiet, as_json=json), yes=yes)
