"""The `doctor` command.

Annotations are not postponed here: Typer reads the types when a command is registered.
"""

from pathlib import Path
from typing import Annotated

import typer

from rlhfctl.cli.options import (
    DEFAULT_RUNS_DIR,
    DebugOption,
    JsonOption,
    OfflineOption,
    QuietOption,
    RunOptions,
    RunsDirOption,
    SetOption,
)


def doctor(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            metavar="RECIPE",
            show_default=False,
            help="Recipe whose needs are checked too. Default: the machine only.",
        ),
    ] = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    set_: SetOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Check the machine: versions, GPU and driver, memory, disks, the Hub, locks."""
    from rlhfctl.cli.doctor import examine

    options = RunOptions(
        recipe=recipe,
        runs_dir=runs_dir,
        set=set_,
        offline=offline,
        json=json,
        quiet=quiet,
        debug=debug,
    )
    examine(options)
