"""The `dpo` command.

Annotations are not postponed here: Typer reads the types when a command is registered.
"""

from typing import Annotated

import typer

from rlhfctl.cli.options import (
    DEFAULT_RUNS_DIR,
    AllowChangeOption,
    AllowCodeOption,
    AllowRemoteCodeOption,
    AllowWorldSizeChangeOption,
    DebugOption,
    EpochsOption,
    ForceOption,
    JsonOption,
    LaunchOption,
    LearningRateOption,
    OfflineOption,
    QuietOption,
    RecipeArg,
    RunOption,
    RunOptions,
    RunsDirOption,
    SeedOption,
    SetOption,
    SFTOption,
    absolute_path,
    key_overrides,
    of_recipe,
)
from rlhfctl.stage_table import DPO


def dpo(
    recipe: RecipeArg = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            metavar="NAME",
            show_default=of_recipe("data.comparisons"),
            help="Comparisons.",
        ),
    ] = None,
    sft_path: SFTOption = None,
    beta: Annotated[
        str | None,
        typer.Option(
            "--beta",
            metavar="X",
            show_default=of_recipe("dpo.beta"),
            help="Coefficient of the implicit KL penalty.",
        ),
    ] = None,
    learning_rate: LearningRateOption = None,
    epochs: EpochsOption = None,
    run_name: RunOption = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    set_: SetOption = None,
    seed: SeedOption = None,
    force: ForceOption = False,
    allow_change: AllowChangeOption = None,
    allow_world_size_change: AllowWorldSizeChangeOption = False,
    launch: LaunchOption = None,
    allow_code: AllowCodeOption = False,
    allow_remote_code: AllowRemoteCodeOption = False,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train the SFT policy on comparisons by DPO, without a reward model."""
    from rlhfctl.cli.run_stages import run_command

    overrides = key_overrides(
        ("--dataset", "data.comparisons.source", absolute_path(dataset)),
        ("--sft", "dpo.sft", absolute_path(sft_path)),
        ("--beta", "dpo.beta", beta),
        ("--learning-rate", "dpo.learning_rate", learning_rate),
        ("--epochs", "dpo.num_train_epochs", epochs),
    )
    options = RunOptions(
        recipe=recipe,
        run=run_name,
        runs_dir=runs_dir,
        set=set_,
        seed=seed,
        force=force,
        allow_change=allow_change,
        allow_world_size_change=allow_world_size_change,
        launch=launch,
        allow_code=allow_code,
        allow_remote_code=allow_remote_code,
        offline=offline,
        json=json,
        quiet=quiet,
        debug=debug,
        overrides=overrides,
    )
    run_command(DPO, options)
