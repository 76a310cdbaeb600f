"""Training curves of each stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.report import curves
from rlhfctl.report.blocks import Plots
from rlhfctl.stage_table import ALL_STAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return the main curves of each stage that has logged any, and the others folded."""
    return tuple(_blocks(facts))


def _blocks(facts: RunFacts) -> Iterator[Block]:
    for stage in ALL_STAGES:
        steps, unit = facts.curves.get(stage.name, []), facts.unit(stage)
        main = tuple(curves.plots(stage, steps, unit))
        extra = tuple(curves.extra_plots(stage, steps, unit))
        if main:
            yield Plots(main, heading=stage.title, note=f"over {unit}; the last value in bold")
            if extra:
                yield Plots(extra, folded=f"{len(extra)} more curves of {stage.title}")
