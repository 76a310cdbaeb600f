"""Alignment tax: task metrics of the base model, SFT and PPO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.report.blocks import Cell, Column, estimate, objects, table
from rlhfctl.report.numbers import finite, number, signed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return the table of tasks, each with its differences and their intervals."""
    value = facts.evaluation.get("tax")
    tasks = objects(value.get("tasks") if isinstance(value, dict) else None)
    return table(
        "Differences with 95 % CIs, paired by example. A change is better or worse only if its CI "
        "excludes 0.",
        (
            Column("Task"),
            Column("Base", "number"),
            Column("SFT", "number"),
            Column("PPO", "number"),
            Column("SFT − base", "number"),
            Column("PPO − SFT", "number"),
            Column("Change"),
            Column("Examples", "number"),
        ),
        [_row(name, task) for name, task in tasks.items()],
    )


def tax_side(task: Mapping[str, Any]) -> str:
    """Return `better` or `worse` where PPO − SFT is significant; else an empty string."""
    low, high = (finite(task.get(f"ppo_minus_sft_{end}")) for end in ("low", "high"))
    if low is None or high is None or low <= 0 <= high:
        return ""
    return "better" if (low > 0) == bool(task.get("higher_is_better", True)) else "worse"


def _row(name: str, task: Mapping[str, Any]) -> tuple[Cell, ...]:
    metric = task.get("metric")
    label = f"{name}: {metric}" if metric else name
    values = (number(task[key]) if key in task else "" for key in ("base", "sft", "ppo"))
    changes = (estimate(task, key, signed) for key in ("sft_minus_base", "ppo_minus_sft"))
    examples = number(task["examples"]) if "examples" in task else ""
    return (label, *values, *changes, tax_side(task), examples)
