"""The `fetch` command.

Annotations are not postponed here: Typer reads the types when a command is registered.
"""

from typing import Annotated

import typer

from rlhfctl.cli.options import (
    DEFAULT_RUNS_DIR,
    DebugOption,
    JsonOption,
    QuietOption,
    RecipeArg,
    RunOptions,
    RunsDirOption,
    SetOption,
)


def fetch(
    recipe: RecipeArg = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the sizes and download nothing.")
    ] = False,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    set_: SetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Download all that a recipe needs from the Hugging Face Hub; `run --offline` then works."""
    from rlhfctl.cli.fetch import fetch_recipe

    options = RunOptions(
        recipe=recipe, runs_dir=runs_dir, set=set_, json=json, quiet=quiet, debug=debug
    )
    fetch_recipe(options, dry_run=dry_run)
