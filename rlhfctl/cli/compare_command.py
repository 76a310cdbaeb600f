"""The `compare` command.

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

DEFAULT_METHODS = "ppo,rloo,grpo,dpo,best_of_n"


def compare(
    recipe: RecipeArg = None,
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            metavar="NAME,...",
            help="Methods: ppo, rloo, grpo, batch_mean, dpo, best_of_n.",
        ),
    ] = DEFAULT_METHODS,
    seeds: Annotated[
        int,
        typer.Option("--seeds", metavar="N", min=1, help="Seeds, counted from the recipe's."),
    ] = 1,
    kl: Annotated[
        float | None,
        typer.Option(
            "--kl",
            metavar="X",
            min=0.0,
            show_default="the largest that all reach",
            help="KL to SFT to compare at, in nats per response.",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", min=1, help="Parallel runs.")] = 1,
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
    """Train rival methods from one SFT and reward model, and compare them at equal KL."""
    from rlhfctl.cli.compare import compare_methods

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
    compare_methods(options, methods=methods, seeds=seeds, jobs=jobs, kl=kl or None)
