"""The commands `sft`, `train-rm`, `ppo`, `eval` and `run`.

Annotations are not postponed here: Typer reads the types when a command is registered.
"""

from pathlib import Path
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
    HumanVoteFiles,
    JsonOption,
    LaunchOption,
    LearningRateOption,
    ModelOption,
    OfflineOption,
    QuietOption,
    RecipeArg,
    RewardModelOption,
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
from rlhfctl.stage_table import EVALUATION, PPO, REWARD_MODEL, SFT

ExportPairsOption = Annotated[
    Path | None,
    typer.Option(
        "--export-pairs",
        metavar="FILE",
        help="Write blinded response pairs for human voting (.csv or .jsonl).",
    ),
]
ImportVotesOption = Annotated[
    Path | None,
    typer.Option(
        "--import-votes",
        metavar="FILE",
        help="Import human votes. Columns: id, annotator, vote (a, b or tie).",
    ),
]


def sft(
    recipe: RecipeArg = None,
    model: ModelOption = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            metavar="NAME",
            show_default=of_recipe("data.demonstrations"),
            help="Demonstrations.",
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
    """Fine-tune the base model on demonstrations."""
    from rlhfctl.cli.run_stages import run_command

    overrides = key_overrides(
        ("--model", "model.name_or_path", absolute_path(model)),
        ("--dataset", "data.demonstrations.source", absolute_path(dataset)),
        ("--learning-rate", "sft.learning_rate", learning_rate),
        ("--epochs", "sft.num_train_epochs", epochs),
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
    run_command(SFT, options)


def train_rm(
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
    """Train the reward model on comparisons."""
    from rlhfctl.cli.run_stages import run_command

    overrides = key_overrides(
        ("--dataset", "data.comparisons.source", absolute_path(dataset)),
        ("--sft", "reward_model.sft", absolute_path(sft_path)),
        ("--learning-rate", "reward_model.learning_rate", learning_rate),
        ("--epochs", "reward_model.num_train_epochs", epochs),
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
    run_command(REWARD_MODEL, options)


def ppo(
    recipe: RecipeArg = None,
    beta: Annotated[
        str | None,
        typer.Option(
            "--beta",
            metavar="X",
            show_default=of_recipe("ppo.beta"),
            help="KL penalty coefficient.",
        ),
    ] = None,
    episodes: Annotated[
        str | None,
        typer.Option(
            "--episodes",
            metavar="N",
            show_default=of_recipe("ppo.episodes"),
            help="Total episodes (sampled responses).",
        ),
    ] = None,
    learning_rate: LearningRateOption = None,
    sft_path: SFTOption = None,
    rm_path: RewardModelOption = None,
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
    """Train the policy against the reward model, with a KL penalty."""
    from rlhfctl.cli.run_stages import run_command

    overrides = key_overrides(
        ("--beta", "ppo.beta", beta),
        ("--episodes", "ppo.episodes", episodes),
        ("--learning-rate", "ppo.learning_rate", learning_rate),
        ("--sft", "ppo.sft", absolute_path(sft_path)),
        ("--rm", "ppo.rm", absolute_path(rm_path)),
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
    run_command(PPO, options)


def evaluate(
    recipe: RecipeArg = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            metavar="N",
            show_default=of_recipe("evaluation.num_prompts"),
            help="Number of held-out prompts.",
        ),
    ] = None,
    sft_path: SFTOption = None,
    rm_path: RewardModelOption = None,
    ppo_path: Annotated[
        str | None,
        typer.Option(
            "--ppo",
            metavar="PATH",
            show_default="the run's",
            help="PPO checkpoint to evaluate instead of the run's.",
        ),
    ] = None,
    export_pairs: ExportPairsOption = None,
    import_votes: ImportVotesOption = None,
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
    """Compare the policy with SFT on held-out prompts and write the report."""
    from rlhfctl.cli.run_stages import run_command

    overrides = key_overrides(
        ("--prompts", "evaluation.num_prompts", prompts),
        ("--sft", "evaluation.sft", absolute_path(sft_path)),
        ("--rm", "evaluation.rm", absolute_path(rm_path)),
        ("--ppo", "evaluation.ppo", absolute_path(ppo_path)),
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
    run_command(EVALUATION, options, HumanVoteFiles(export_pairs, import_votes))


def run(
    recipe: RecipeArg = None,
    model: ModelOption = None,
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
    """Run every stage that is not up to date and write the report."""
    from rlhfctl.cli.run_stages import run_command

    overrides = key_overrides(
        ("--model", "model.name_or_path", absolute_path(model)),
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
    run_command(None, options)
