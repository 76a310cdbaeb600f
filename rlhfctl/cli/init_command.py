"""The `init` command.

Annotations are not postponed here: Typer reads the types when a command is registered.
"""

from pathlib import Path
from typing import Annotated

import typer

from rlhfctl.cli.options import DebugOption, JsonOption, QuietOption

DEFAULT_FILE = Path("mine.yaml")


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Recipe to write.")] = DEFAULT_FILE,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RECIPE",
            show_default="base for the embedded model, else the defaults of all keys",
            help="Recipe to start from: a file, or a name that `rlhfctl recipes` lists.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", show_default="the file's name", help="Name of the run."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            show_default="that of --from",
            help="Base model: a Hub id, a local folder, or embedded.",
        ),
    ] = None,
    demonstrations: Annotated[
        str | None,
        typer.Option(
            "--demonstrations",
            metavar="SOURCE",
            show_default="those of --from",
            help="Prompts with a good response: a file, a folder or a Hub id.",
        ),
    ] = None,
    comparisons: Annotated[
        str | None,
        typer.Option(
            "--comparisons",
            metavar="SOURCE",
            show_default="those of --from",
            help="Prompts with a better and a worse response.",
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            metavar="SOURCE",
            show_default="those of --from, else the demonstrations",
            help="Prompts for PPO and the evaluation.",
        ),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a commented recipe; on a terminal, ask for what the options leave open."""
    from rlhfctl.cli.init import InitRequest, write_recipe
    from rlhfctl.console import Terminal

    request = InitRequest(file, from_, name, model, demonstrations, comparisons, prompts)
    write_recipe(request, Terminal(quiet=quiet, as_json=json))
