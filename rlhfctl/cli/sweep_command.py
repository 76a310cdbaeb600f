"""The `sweep` command.

Annotations are not postponed here: Typer reads the types when a command is registered.
"""

from typing import Annotated

import typer

from rlhfctl.cli.options import (
    DEFAULT_RUNS_DIR,
    AllowCodeOption,
    AllowRemoteCodeOption,
    DebugOption,
    ForceOption,
    JsonOption,
    OfflineOption,
    QuietOption,
    RecipeArg,
    RunOption,
    RunOptions,
    RunsDirOption,
    SeedOption,
    SetOption,
)


def sweep(
    recipe: RecipeArg = None,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", min=1, help="Parallel runs.")] = 1,
    zip_: Annotated[
        bool,
        typer.Option("--zip", help="Pair the lists element by element instead of forming a grid."),
    ] = False,
    run_name: RunOption = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    set_: SetOption = None,
    seed: SeedOption = None,
    force: ForceOption = False,
    allow_code: AllowCodeOption = False,
    allow_remote_code: AllowRemoteCodeOption = False,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Run every combination of settings given as --set KEY=VALUE,VALUE,..."""
    from rlhfctl.cli.sweep import run_grid

    options = RunOptions(
        recipe=recipe,
        run=run_name,
        runs_dir=runs_dir,
        set=set_,
        seed=seed,
        force=force,
        allow_code=allow_code,
        allow_remote_code=allow_remote_code,
        offline=offline,
        json=json,
        quiet=quiet,
        debug=debug,
    )
    run_grid(options, jobs=jobs, zipped=zip_)
