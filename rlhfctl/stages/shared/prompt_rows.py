"""Prompts with the further columns that reward functions and servers receive."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class PromptRows:
    """Prompts as in the data, with the columns that some reward source wants.

    Attributes:
        prompts: [prompts] text or messages.
        columns: Column -> [prompts] values as in the source.
    """

    prompts: Sequence[Any]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def select(self, rows: Sequence[int]) -> PromptRows:
        """Return the prompts and columns of some rows, in their order; rows may repeat."""
        return PromptRows(
            [self.prompts[row] for row in rows],
            {name: [values[row] for row in rows] for name, values in self.columns.items()},
        )

    def only(self, names: Sequence[str] | None, where: str) -> PromptRows:
        """Return the prompts with some columns; None: all of them.

        Args:
            names: Names of columns.
            where: Recipe key, for errors.

        Raises:
            RecipeError: There is no such column.
        """
        if names is None:
            return self
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise RecipeError(
                f"data.prompts has no column {', '.join(missing)} to pass on",
                where,
                "Name columns of the source in `columns`, or leave it out.",
            )
        return PromptRows(self.prompts, {name: self.columns[name] for name in names})
