"""The command `plan`.

Annotations are not postponed here: Typer reads the types when a command is registered.
"""

from typing import Annotated

import typer

from rlhfctl.cli.options import (
    DEFAULT_RUNS_DIR,
    AllowRemoteCodeOption,
    DebugOption,
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


def plan(
    recipe: RecipeArg = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            metavar="GPU",
            show_default="this machine",
            help="Device to plan for: T4, L4, A10, RTX4090, A100-80 or H100.",
        ),
    ] = None,
    tflops: Annotated[
        float | None,
        typer.Option(
            "--tflops",
            metavar="X",
            show_default="0.35 of the data sheet's",
            help="Sustained speed of training, in 10^12 operations per second.",
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Train two real steps of every stage here, and measure them."),
    ] = False,
    longest: Annotated[
        bool,
        typer.Option(
            "--longest", help="Find PPO's longest response that fits on 16, 24 and 80 GB."
        ),
    ] = False,
    run_name: RunOption = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    set_: SetOption = None,
    seed: SeedOption = None,
    allow_remote_code: AllowRemoteCodeOption = False,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Estimate memory, time and disk space of every stage, without weights."""
    from rlhfctl.cli.plan_table import show_plan

    options = RunOptions(
        recipe=recipe,
        run=run_name,
        runs_dir=runs_dir,
        set=set_,
        seed=seed,
        allow_remote_code=allow_remote_code,
        offline=offline,
        json=json,
        quiet=quiet,
        debug=debug,
    )
    show_plan(options, gpu, tflops=tflops, probe=probe, longest=longest)
