"""The `watch` command: follow a run from another terminal by its files.

Annotations are not postponed here: Typer reads the types when a command is registered.
"""

from typing import Annotated

import typer

from rlhfctl.cli.options import (
    DEFAULT_RUNS_DIR,
    DebugOption,
    JsonOption,
    QuietOption,
    RunsDirOption,
)


def watch_run(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            show_default=False,
            help="Run name or run folder. Default: the run that is running, else the newest.",
        ),
    ] = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    once: Annotated[bool, typer.Option("--once", help="Print the state once and end.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Follow a run's progress from another terminal, until it ends or Ctrl-C.

    It only reads the run's files, so that the run does not notice it.
    """
    from rlhfctl.cli.follow import follow, print_state
    from rlhfctl.cli.runs_view import newest
    from rlhfctl.console import Terminal
    from rlhfctl.run.listing import run_named

    terminal = Terminal(quiet=quiet, as_json=json)
    directory = run_named(run, runs_dir) if run is not None else newest(runs_dir).directory
    if once or json:
        print_state(directory, terminal)
    else:
        follow(directory, terminal)
