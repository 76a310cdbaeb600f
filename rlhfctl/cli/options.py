"""Arguments and options that several commands share.

Annotations are not postponed here: Typer reads the types when a command is registered.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rlhfctl.recipe.load import Override


def of_recipe(key: str) -> str:
    """Return the default of an option that overrides a recipe key, as help shows it."""
    return f"the recipe's {key}"


_RUN = "Run"
_OUTPUT = "Output"

RecipeArg = Annotated[
    Path | None,
    typer.Argument(
        metavar="RECIPE",
        show_default=False,
        help="Recipe file. Default: $RLHFCTL_RECIPE, then the newest run's recipe, then "
        "recipes/base.yaml.",
    ),
]
RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="NAME",
        rich_help_panel=_RUN,
        show_default="the recipe's name",
        help="Name of the run folder.",
    ),
]
RunsDirOption = Annotated[
    Path,
    typer.Option("--runs-dir", metavar="DIR", rich_help_panel=_RUN, help="Directory for runs."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        rich_help_panel=_RUN,
        help="Override a recipe key, for example ppo.beta=0.1. Repeatable.",
    ),
]
SeedOption = Annotated[
    str | None,
    typer.Option(
        "--seed",
        metavar="N",
        rich_help_panel=_RUN,
        show_default="the recipe's seed",
        help="Random seed.",
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        rich_help_panel=_RUN,
        help="Run stages from their beginning, also those that are up to date or interrupted.",
    ),
]
AllowChangeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-change",
        metavar="KEY",
        rich_help_panel=_RUN,
        help="Resume an interrupted stage although this recipe key or input has changed. "
        "Repeatable.",
    ),
]
AllowWorldSizeChangeOption = Annotated[
    bool,
    typer.Option(
        "--allow-world-size-change",
        rich_help_panel=_RUN,
        help="Resume an interrupted stage with another number of processes; not bit-exact.",
    ),
]
LaunchOption = Annotated[
    Path | None,
    typer.Option(
        "--launch",
        metavar="FILE",
        rich_help_panel=_RUN,
        help="Accelerate config for a multi-process run, for example recipes/launch/ddp.yaml.",
    ),
]
AllowCodeOption = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        rich_help_panel=_RUN,
        help="Import the functions and task files that the recipe names ($RLHFCTL_ALLOW_CODE=1).",
    ),
]
AllowRemoteCodeOption = Annotated[
    bool,
    typer.Option(
        "--allow-remote-code",
        rich_help_panel=_RUN,
        help="Run the code of a model with trust_remote_code ($RLHFCTL_ALLOW_REMOTE_CODE=1).",
    ),
]
OfflineOption = Annotated[
    bool,
    typer.Option(
        "--offline",
        rich_help_panel=_RUN,
        help="Make no connection to another machine; what `rlhfctl fetch` downloaded is used "
        "($RLHFCTL_OFFLINE=1).",
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", rich_help_panel=_OUTPUT, help="Print one JSON object to stdout."),
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", rich_help_panel=_OUTPUT, help="Print only the result and errors."
    ),
]
DebugOption = Annotated[
    bool,
    typer.Option("--debug", rich_help_panel=_OUTPUT, help="Show tracebacks of errors."),
]

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME", show_default=of_recipe("model.name_or_path"), help="Base model."
    ),
]
EpochsOption = Annotated[
    str | None,
    typer.Option(
        "--epochs",
        metavar="X",
        show_default=of_recipe("num_train_epochs"),
        help="Number of training epochs.",
    ),
]
LearningRateOption = Annotated[
    str | None,
    typer.Option(
        "--learning-rate",
        metavar="X",
        show_default=of_recipe("learning_rate"),
        help="Learning rate.",
    ),
]
SFTOption = Annotated[
    str | None,
    typer.Option(
        "--sft",
        metavar="PATH",
        show_default="the run's",
        help="SFT checkpoint to use instead of the run's.",
    ),
]
RewardModelOption = Annotated[
    str | None,
    typer.Option(
        "--rm",
        metavar="PATH",
        show_default="the run's",
        help="Reward model to use instead of the run's.",
    ),
]

DEFAULT_RUNS_DIR = Path("runs")


@dataclass(frozen=True)
class RunOptions:
    """Options of every command that works with a recipe and a run folder.

    Attributes:
        recipe: Recipe file; None for the default search order.
        run: Name of the run folder.
        runs_dir: Directory for runs.
        set: Recipe keys as ``KEY=VALUE``.
        seed: Random seed, as typed.
        force: Run stages from their beginning.
        allow_change: Recipe keys and inputs that may change within an interrupted stage.
        allow_world_size_change: Resume with another number of processes.
        launch: Accelerate configuration for a multi-process run.
        allow_code: Import the functions and task files that the recipe names.
        allow_remote_code: Run the code of a model with `trust_remote_code`.
        offline: Make no connection to another machine.
        json: Print one JSON object to stdout.
        quiet: Print only the result and errors.
        debug: Show tracebacks of errors.
        overrides: Recipe keys from options such as ``--beta``; they win over `set`.
    """

    recipe: Path | None = None
    run: str | None = None
    runs_dir: Path = DEFAULT_RUNS_DIR
    set: list[str] | None = None
    seed: str | None = None
    force: bool = False
    allow_change: list[str] | None = None
    allow_world_size_change: bool = False
    launch: Path | None = None
    allow_code: bool = False
    allow_remote_code: bool = False
    offline: bool = False
    json: bool = False
    quiet: bool = False
    debug: bool = False
    overrides: "tuple[Override, ...]" = ()


@dataclass(frozen=True)
class HumanVoteFiles:
    """Files of the human evaluation.

    Attributes:
        export_pairs: Destination of the blinded pairs.
        import_votes: Votes to add to the evaluation.
    """

    export_pairs: Path | None = None
    import_votes: Path | None = None


def key_overrides(*options: tuple[str, str, str | None]) -> "tuple[Override, ...]":
    """Return one override per option that is set.

    Args:
        options: Flag, recipe key and value of each option; None if the user did not pass it.
    """
    from rlhfctl.recipe.load import Override

    return tuple(Override(key, value, flag) for flag, key, value in options if value is not None)


def absolute_path(name: str | None) -> str | None:
    """Return an existing local path as an absolute path; leave a Hub name unchanged.

    The recipe in the run folder then works from any working directory.
    """
    if name is None:
        return None
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name
