"""Best-of-n sampling from SFT, without training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.report.blocks import Cell, Column, estimate_cell, plots, table
from rlhfctl.report.curves import Plot, at_distance, interval_line
from rlhfctl.report.numbers import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.estimate import Estimate
    from rlhfctl.results.evaluation import BestOfN, BestOfNRow, PolicyMetrics


@dataclass(frozen=True)
class _Curve:
    """Best-of-n by one score, and PPO's mean of that score."""

    title: str
    rows: Sequence[BestOfNRow]
    ppo: Estimate | None


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return each reward against √KL to SFT, with PPO's position, and the table."""
    result = facts.evaluation.best_of_n if facts.evaluation else None
    ppo = facts.policy("ppo")
    curves = [] if result is None else [curve for curve in _curves(result, ppo) if curve.rows]
    if not curves:
        return ()
    body: list[tuple[Cell, ...]] = []
    for index, row in enumerate(curves[0].rows):
        rows = [curve.rows[index] if index < len(curve.rows) else None for curve in curves]
        cells = [estimate_cell(row.value if row else None) for row in rows]
        body.append((number(row.n), number(row.kl), *cells))
    columns = [Column("n"), Column("KL, nats", "number")]
    columns += [Column(curve.title, "number") for curve in curves]
    return (
        *plots((_plot(curve, ppo, facts.policy_name) for curve in curves), large=True),
        *table(
            "The highest-proxy response of n SFT samples, with 95 % CIs. Its KL to SFT is "
            "ln n − (n − 1) / n.",
            columns,
            body,
        ),
    )


def curve_points(rows: Iterable[BestOfNRow]) -> list[tuple[float, Estimate]]:
    """Return the points of a best-of-n curve: distance from SFT and value."""
    return [(at_distance(row.kl), row.value) for row in rows]


def _curves(result: BestOfN, ppo: PolicyMetrics | None) -> tuple[_Curve, ...]:
    return (
        _Curve("Proxy", result.proxy, ppo.proxy if ppo else None),
        _Curve("Gold", result.gold or (), ppo.gold if ppo else None),
        _Curve("Held-out reward model", result.true_reward or (), None),
    )


def _plot(curve: _Curve, ppo: PolicyMetrics | None, name: str) -> Plot:
    place = [(at_distance(ppo.kl.value), curve.ppo)] if ppo else []
    lines = (
        interval_line("best of n", curve_points(curve.rows)),
        interval_line(name, place, "dots", 2),
    )
    shown = tuple(line for line in lines if line is not None)
    return Plot(
        f"{curve.title} against √KL", shown, "√KL to SFT, √nats", "mean score", whole_steps=False
    )
