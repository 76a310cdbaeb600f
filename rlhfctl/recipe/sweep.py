"""The `sweep` section: the settings that `rlhfctl sweep` combines."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rlhfctl.recipe.base import Section


class SweepSection(Section):
    """Settings of `rlhfctl sweep`; no stage reads them."""

    set: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Map from recipe keys to lists of values; the sweep runs all combinations.",
    )
    zip: bool = Field(
        False, description="Combine the n-th values of all lists, instead of all combinations."
    )
