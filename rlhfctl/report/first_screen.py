"""First screen of a report: verdict, tiles, the chart of proxy and true reward, a typical sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.report import highlights
from rlhfctl.report.curves import Plot, curve
from rlhfctl.report.sections.overoptimisation import over_episodes
from rlhfctl.report.tiles import tiles
from rlhfctl.stage_table import PPO

if TYPE_CHECKING:
    from rlhfctl.report.highlights import Highlight
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.report.tiles import Tile
    from rlhfctl.report.verdict import Verdict


@dataclass(frozen=True)
class FirstScreen:
    """Everything visible without scrolling.

    Attributes:
        verdict: The verdict; its cautions are listed in full below the first screen.
        tiles: Metrics before and after PPO.
        chart: Proxy and true reward over episodes; None before PPO has logged anything.
        pair: A typical sample; None without responses of both policies.
    """

    verdict: Verdict
    tiles: tuple[Tile, ...]
    chart: Plot | None
    pair: Highlight | None


def of(facts: RunFacts, verdict: Verdict) -> FirstScreen:
    """Return the first screen of a run."""
    return FirstScreen(
        verdict,
        tuple(tiles(facts)),
        _chart(facts),
        highlights.typical(facts.samples, facts.policy_name),
    )


def _chart(facts: RunFacts) -> Plot | None:
    """Return the held-out rewards over episodes, else the training score."""
    held_out = over_episodes(facts.held_out, facts.over_optimisation, size="first")
    if held_out.lines:
        return held_out
    line = curve("score", "score in training", facts.curves.get(PPO.name, []))
    if line is None:
        return None
    title = "Score during PPO"
    return Plot(title, (line,), x=facts.unit(PPO), y="mean score per response", size="first")
