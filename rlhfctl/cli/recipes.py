"""The `recipes` and `schema` commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.table import Table

from rlhfctl.console import safe
from rlhfctl.errors import UsageError
from rlhfctl.recipe.json_schema import recipe_schema, schema_text
from rlhfctl.recipe.library_names import closest
from rlhfctl.recipe.load import shipped_recipe, shipped_recipes
from rlhfctl.recipe.shipped import describe_shipped

if TYPE_CHECKING:
    from rlhfctl.console import Terminal
    from rlhfctl.recipe.shipped import ShippedRecipe


def list_recipes(terminal: Terminal) -> None:
    """Print name, GPU, model and data of every shipped recipe."""
    described = describe_shipped()
    if terminal.as_json:
        terminal.write_json(
            {
                "recipes": [
                    {
                        "name": recipe.name,
                        "path": str(recipe.path),
                        "model": recipe.model,
                        "quantization": recipe.quantization,
                        "data": list(recipe.data),
                        "gpu_memory_gb": recipe.gpu_memory_gb,
                    }
                    for recipe in described
                ]
            }
        )
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("recipe", style="bold", no_wrap=True)
    table.add_column("GPU", no_wrap=True, justify="right")
    table.add_column("model, data", overflow="fold")
    for recipe in described:
        table.add_row(safe(recipe.name), _gpu(recipe), safe(_model_and_data(recipe)))
    terminal.result(table)
    terminal.note(
        "rlhfctl recipes NAME prints one, rlhfctl run NAME runs it, and\n"
        "rlhfctl init FILE --from NAME writes a recipe of your own from it."
    )


def _gpu(recipe: ShippedRecipe) -> str:
    return f"{recipe.gpu_memory_gb} GB" if recipe.gpu_memory_gb else "none"


def _model_and_data(recipe: ShippedRecipe) -> str:
    bits = "" if recipe.quantization == "none" else f" in {recipe.quantization}"
    return "\n".join((f"{recipe.model}{bits}", *recipe.data))


def print_recipe(name: str, terminal: Terminal) -> None:
    """Print the file of a shipped recipe.

    Raises:
        UsageError: There is no recipe of that name.
    """
    path = shipped_recipe(name)
    if path is None:
        names = [recipe.stem for recipe in shipped_recipes()]
        raise UsageError(
            f"no shipped recipe has this name{closest(name, names)}",
            name,
            "rlhfctl recipes lists them",
        )
    text = path.read_text(encoding="utf-8")
    if terminal.as_json:
        terminal.write_json({"name": path.stem, "path": str(path), "text": text})
        return
    sys.stdout.write(text)


def print_schema(terminal: Terminal) -> None:
    """Print the JSON Schema of a recipe."""
    if terminal.as_json:
        terminal.write_json({"schema": recipe_schema()})
        return
    sys.stdout.write(schema_text())
