"""Best-of-n sampling from SFT, without training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rlhfctl.report.blocks import Cell, Column, estimate, objects, plots, table
from rlhfctl.report.curves import Line, Plot, interval_line
from rlhfctl.report.numbers import finite, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts

_TITLES = {
    "proxy": "Proxy",
    "gold": "Gold",
    "true_reward": "Held-out reward model",
}


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return each reward against √KL to SFT, with PPO's position, and the table."""
    value = facts.evaluation.get("best_of_n")
    curves = {name: points for name in _TITLES if (points := curve_points(value, name))}
    if not curves:
        return ()
    policies = objects(facts.evaluation.get("policies"))
    first, *_ = curves.values()
    rows: list[tuple[Cell, ...]] = []
    for index, point in enumerate(first):
        sides = [points[index] if index < len(points) else {} for points in curves.values()]
        cells = [estimate(side, "value") for side in sides]
        rows.append((number(point.get("n")), number(point.get("kl")), *cells))
    columns = [Column("n"), Column("KL, nats", "number")]
    columns += [Column(_TITLES[name], "number") for name in curves]
    pictures = [
        _plot(name, points, policies.get("ppo", {}), name) for name, points in curves.items()
    ]
    return (
        *plots(pictures, large=True),
        *table(
            "The highest-proxy response of n SFT samples, with 95 % CIs. Its KL to SFT is "
            "ln n − (n − 1) / n.",
            columns,
            rows,
        ),
    )


def curve_points(value: Any, name: str) -> list[dict[str, Any]]:
    """Return the points of a best-of-n curve, each with its distance from SFT."""
    points = value.get(name) if isinstance(value, dict) else None
    return [
        {**point, "sqrt_kl": math.sqrt(max(kl, 0.0))}
        for point in (points if isinstance(points, list) else [])
        if isinstance(point, dict) and (kl := finite(point.get("kl"))) is not None
    ]


def _plot(
    name: str, points: Sequence[Mapping[str, Any]], ppo: Mapping[str, Any], metric: str
) -> Plot:
    best = interval_line("best of n", points, "sqrt_kl", "value")
    kl = finite(ppo.get("kl"))
    place = [{**ppo, "sqrt_kl": math.sqrt(max(kl, 0.0))}] if kl is not None else []
    trained: Line | None = interval_line("PPO", place, "sqrt_kl", metric, "dots", 2)
    lines = tuple(line for line in (best, trained) if line is not None)
    return Plot(f"{_TITLES[name]} against √KL", lines, whole_steps=False)
