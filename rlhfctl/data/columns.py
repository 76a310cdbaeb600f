"""Further columns of the prompts, for reward functions and servers that want them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.data.raw import selected
from rlhfctl.data.row_check import SOURCE_ROW
from rlhfctl.data.sources import raw_prompts

if TYPE_CHECKING:
    from collections.abc import Collection

    from datasets import Dataset

    from rlhfctl.recipe.schema import Recipe

RESERVED = frozenset({"prompt", "prompts", "completion", "completions", "completion_ids"})
"""Names that a source's columns cannot be passed under, since the arguments have them."""


def column_names(recipe: Recipe) -> tuple[str, ...]:
    """Return the columns of the source of ``data.prompts``; raises as `read_columns`."""
    return raw_prompts(recipe).columns


def read_columns(
    recipe: Recipe, prompts: Dataset, names: Collection[str] | None
) -> dict[str, list[Any]]:
    """Return columns of ``data.prompts`` beside the prompt, one value per prompt.

    The source is read again, so that columns which nobody wants are never in memory.

    Args:
        recipe: Recipe; the source of prompts is read.
        prompts: Prompts of `load_prompts`, in any order and number.
        names: Names of columns in the source, of which those that exist are read; None: all.

    Returns:
        Column -> [prompts] values as in the source, None where a row has none.

    Raises:
        DataError: The source is missing, damaged or in another format.
        EnvironmentFault: The Hub data set cannot be loaded.
        UnsafeError: The source is a script.
    """
    requested = None if names is None else set(names) - RESERVED
    if requested is not None and not requested:
        return {}
    raw = raw_prompts(recipe)
    chosen = [
        name
        for name in raw.columns
        if name not in RESERVED and (requested is None or name in requested)
    ]
    if not chosen:
        return {}
    rows: Any = raw.rows
    if hasattr(rows, "select_columns"):
        rows = rows.select_columns(chosen)
    values = selected(rows, prompts[SOURCE_ROW])
    return {name: [row.get(name) for row in values] for name in chosen}
