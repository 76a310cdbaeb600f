"""Commands about recipes: `recipes`, `schema`, `show` and `validate`.

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
    RunOption,
    RunOptions,
    RunsDirOption,
    SeedOption,
    SetOption,
)


def show(
    recipe: RecipeArg = None,
    run_name: RunOption = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    set_: SetOption = None,
    seed: SeedOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Print the resolved recipe and the origin of each value."""
    from rlhfctl.cli.inspection import show_recipe

    options = RunOptions(
        recipe=recipe,
        run=run_name,
        runs_dir=runs_dir,
        set=set_,
        seed=seed,
        json=json,
        quiet=quiet,
        debug=debug,
    )
    show_recipe(options)


def validate(
    recipe: RecipeArg = None,
    run_name: RunOption = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    set_: SetOption = None,
    seed: SeedOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Check a recipe and the data files and columns it refers to."""
    from rlhfctl.cli.inspection import validate_recipe

    options = RunOptions(
        recipe=recipe,
        run=run_name,
        runs_dir=runs_dir,
        set=set_,
        seed=seed,
        json=json,
        quiet=quiet,
        debug=debug,
    )
    validate_recipe(options)


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", show_default=False, help="Recipe to print. Default: list all of them."
        ),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """List the shipped recipes, or print one."""
    from rlhfctl.cli.recipes import list_recipes, print_recipe
    from rlhfctl.console import Terminal

    terminal = Terminal(quiet=quiet, as_json=json)
    if name is None:
        list_recipes(terminal)
    else:
        print_recipe(name, terminal)


def schema(
    json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False
) -> None:
    """Print the JSON Schema of a recipe, for editors."""
    from rlhfctl.cli.recipes import print_schema
    from rlhfctl.console import Terminal

    print_schema(Terminal(quiet=quiet, as_json=json))
