"""The `migrate` command.

Annotations are not postponed here: Typer reads the types when a command is registered.
"""

from pathlib import Path
from typing import Annotated

import typer

from rlhfctl.cli.options import DebugOption, JsonOption, QuietOption


def migrate(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="YAML files of LLaMA-Factory or axolotl, one per stage.",
            show_default=False,
        ),
    ],
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TOOL",
            show_default="found by the keys",
            help="Tool that the files are of: llamafactory or axolotl.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default="printed",
            help="Recipe to write.",
        ),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a recipe from files of LLaMA-Factory or axolotl."""
    from rlhfctl.cli.migrate import migrate_files
    from rlhfctl.console import Terminal

    migrate_files(files, from_, output, Terminal(quiet=quiet, as_json=json))
