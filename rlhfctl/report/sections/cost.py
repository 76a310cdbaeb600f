"""Cost of each stage: time, speed and peak memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.report.blocks import Cell, Column, table
from rlhfctl.report.numbers import duration, finite, number, size_of
from rlhfctl.stage_table import ALL_STAGES

if TYPE_CHECKING:
    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import LogStep, RunFacts


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return a row per finished stage, and their sum."""
    whole = sum(record.seconds for record in facts.records.values())
    rows: list[tuple[Cell, ...]] = []
    for stage in ALL_STAGES:
        record = facts.records.get(stage.name)
        if record is None:
            continue
        steps = facts.curves.get(stage.name, [])
        rows.append(
            (
                stage.title,
                duration(record.seconds),
                f"{100 * record.seconds / whole:.0f} %" if whole else "",
                *map(_speed, (steps, steps), ("tokens_per_second", "episodes_per_second")),
                size_of(peak) if (peak := peak_memory(steps)) is not None else "",
            )
        )
    if len(rows) > 1:
        rows.append(("All stages", duration(whole), "100 %", "", "", ""))
    return table(
        "Wall-clock time of finished stages; speeds are means of the logged steps. Peak memory is "
        "the GPU's if there is one, else the process's.",
        (
            Column("Stage"),
            Column("Time", "number"),
            Column("Share", "number"),
            Column("Tokens per second", "number"),
            Column("Episodes per second", "number"),
            Column("Peak memory", "number"),
        ),
        rows,
    )


def peak_memory(steps: list[LogStep]) -> float | None:
    """Return the largest logged peak, in bytes."""
    return max(_values(steps, "memory_bytes"), default=None)


def _speed(steps: list[LogStep], name: str) -> str:
    """Return the mean of a logged speed; empty if it was not logged."""
    values = _values(steps, name)
    return number(sum(values) / len(values)) if values else ""


def _values(steps: list[LogStep], name: str) -> list[float]:
    return [value for step in steps if (value := finite(step.get(name))) is not None]
