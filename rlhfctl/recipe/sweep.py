"""The `sweep` section: the settings at which `rlhfctl sweep` tries the recipe."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rlhfctl.recipe.base import Section


class SweepSection(Section):
    """Read by `rlhfctl sweep` alone; no stage depends on it."""

    set: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default_factory=dict, description="Recipe key -> the values to try, all combinations."
    )
    zip: bool = Field(False, description="Pair the lists, first with first, instead.")
