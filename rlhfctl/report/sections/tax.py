"""Alignment tax: task metrics of the base model, SFT and PPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.report.blocks import Cell, Column, estimate_cell, finite_ends, table
from rlhfctl.report.numbers import number, signed

if TYPE_CHECKING:
    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.evaluation import TaxTask


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return the table of tasks, each with its differences and their intervals."""
    tax = facts.evaluation.tax if facts.evaluation else None
    return table(
        "Differences with 95 % CIs, paired by example. A change is better or worse only if its CI "
        "excludes 0.",
        (
            Column("Task"),
            Column("Base", "number"),
            Column("SFT", "number"),
            Column(facts.policy_name, "number"),
            Column("SFT − base", "number"),
            Column(f"{facts.policy_name} − SFT", "number"),
            Column("Change"),
            Column("Examples", "number"),
        ),
        [_row(name, task) for name, task in tax.tasks.items()] if tax else [],
    )


def tax_side(task: TaxTask) -> str:
    """Return `better` or `worse` where PPO − SFT is significant; else an empty string."""
    ends = finite_ends(task.ppo_minus_sft)
    if ends is None:
        return ""
    low, _, high = ends
    if low <= 0 <= high:
        return ""
    return "better" if (low > 0) == task.higher_is_better else "worse"


def _row(name: str, task: TaxTask) -> tuple[Cell, ...]:
    label = f"{name}: {task.metric}" if task.metric else name
    values = ("" if value is None else number(value) for value in (task.base, task.sft, task.ppo))
    changes = (
        estimate_cell(change, signed) for change in (task.sft_minus_base, task.ppo_minus_sft)
    )
    return (label, *values, *changes, tax_side(task), number(task.examples))
