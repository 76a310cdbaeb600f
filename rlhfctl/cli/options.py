"""The options that commands share, declared once, and the short ones that stand for recipe keys.

No postponed annotations here: Typer reads the types when a command is made.
"""

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

_RUN = "Run"
_OUTPUT = "Output"


@dataclass(frozen=True)
class Settings:
    """What every command that works on a run takes; the types are Typer's declarations."""

    recipe: Annotated[
        Path | None,
        typer.Argument(
            metavar="RECIPE",
            show_default=False,
            help="Recipe file. Else RLHFCTL_RECIPE, else the newest run's, else recipes/base.yaml.",
        ),
    ] = None
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="NAME", rich_help_panel=_RUN, help="Run folder to work in."),
    ] = None
    runs_dir: Annotated[
        Path,
        typer.Option("--runs-dir", metavar="DIR", rich_help_panel=_RUN, help="Where runs lie."),
    ] = Path("runs")
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            rich_help_panel=_RUN,
            help="Override any recipe key, such as ppo.beta=0.1. Repeatable.",
        ),
    ] = None
    seed: Annotated[
        str | None,
        typer.Option("--seed", metavar="N", rich_help_panel=_RUN, help="The recipe's seed."),
    ] = None
    force: Annotated[
        bool,
        typer.Option("--force", rich_help_panel=_RUN, help="Redo a stage that is up to date."),
    ] = False
    launch: Annotated[
        Path | None,
        typer.Option(
            "--launch",
            metavar="FILE",
            rich_help_panel=_RUN,
            help="Run in several processes: an accelerate config, such as recipes/launch/ddp.yaml.",
        ),
    ] = None
    json: Annotated[
        bool,
        typer.Option("--json", rich_help_panel=_OUTPUT, help="One JSON object on stdout."),
    ] = False
    quiet: Annotated[
        bool,
        typer.Option("--quiet", rich_help_panel=_OUTPUT, help="Only errors and the result."),
    ] = False
    debug: Annotated[
        bool,
        typer.Option("--debug", rich_help_panel=_OUTPUT, help="Show the traceback of an error."),
    ] = False


@dataclass(frozen=True)
class SweepSettings(Settings):
    """What `sweep` takes besides; a value of `--set` or `--seed` may be a list."""

    jobs: Annotated[
        int, typer.Option("--jobs", metavar="N", min=1, help="Points run at a time.")
    ] = 1
    zip: Annotated[
        bool, typer.Option("--zip", help="Pair the lists, first with first, instead of a grid.")
    ] = False


@dataclass(frozen=True)
class EvalSettings(Settings):
    """What an evaluation takes beside them: files for people who judge."""

    export_pairs: Annotated[
        Path | None,
        typer.Option(
            "--export-pairs",
            metavar="FILE",
            help="Write blinded pairs of answers for people to vote on (.csv or .jsonl).",
        ),
    ] = None
    import_votes: Annotated[
        Path | None,
        typer.Option(
            "--import-votes",
            metavar="FILE",
            help="Read people's votes back: id, annotator, vote (a, b or tie).",
        ),
    ] = None


@dataclass(frozen=True)
class KeyOption:
    """A short option that sets one recipe key.

    Attributes:
        flag: As typed, such as ``--beta``.
        key: The dotted recipe key.
        metavar: What its value is called in the help.
        help: One line.
        is_path: Its value may be a local path; one that exists is written down in full, so that
            the run's own recipe means the same wherever it is read.
    """

    flag: str
    key: str
    metavar: str
    help: str
    is_path: bool = False

    @property
    def name(self) -> str:
        """The name of the parameter that Typer fills."""
        return self.flag.removeprefix("--").replace("-", "_")

    def value(self, text: str) -> str:
        """Return the value as the recipe should have it."""
        path = Path(text).expanduser()
        return str(path.resolve()) if self.is_path and path.exists() else text


GivenKeys = list[tuple[KeyOption, str]]
Command = Callable[[Settings, GivenKeys], None]


def with_options(
    command: Command,
    keys: Sequence[KeyOption],
    help_text: str,
    without: Collection[str] = (),
    kind: type[Settings] = Settings,
) -> Callable[..., None]:
    """Give a command the parameters that Typer reads: those of `Settings`, and its short options.

    Args:
        command: Called with the settings and the short options that were given.
        keys: The short options it takes.
        help_text: What its help page says.
        without: Fields of `Settings` that mean nothing to it.
        kind: `Settings`, or a class that adds to it.
    """

    def run(**values: Any) -> None:
        given = [(key, values.pop(key.name)) for key in keys]
        settings = kind(**values)
        command(settings, [(key, key.value(text)) for key, text in given if text is not None])

    hints = get_type_hints(kind, include_extras=True)
    parameters = [
        _parameter(field.name, hints[field.name], field.default)
        for field in fields(kind)
        if field.name not in without
    ]
    parameters += [
        _parameter(
            key.name,
            Annotated[str | None, typer.Option(key.flag, metavar=key.metavar, help=key.help)],
            None,
        )
        for key in keys
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {}
    run.__doc__ = help_text
    return run


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
