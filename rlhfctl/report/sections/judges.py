"""Win rates by other judges: a held-out reward model, an endpoint, a function, people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.report.blocks import (
    SHARE_COLUMNS,
    Cell,
    Column,
    estimate,
    group,
    objects,
    share_cells,
    table,
    warnings,
)
from rlhfctl.report.numbers import finite, number, share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts

_KINDS = {"reward_model": "a reward model", "endpoint": "an endpoint"} | {
    "function": "a function",
    "humans": "people",
}
_COUNTS = ("prompts", "wins", "ties", "losses", "refusals", "unparsable")
_LENGTH_CONTROLLED = "length_controlled_win_rate"


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return win rates, judgment counts, agreement and warnings per judge."""
    judges = objects(facts.evaluation.get("judges"))
    if not judges:
        return ()
    rates = table(
        "Share of prompts on which the judge prefers PPO's response; ties count 0.5. "
        "Length-controlled: as if both responses had the same length (AlpacaEval 2).",
        (Column("Judge"), *SHARE_COLUMNS),
        [row for name, judge in judges.items() for row in _rates(name, judge)],
    )
    counts = table(
        "Judgment counts. First position: how often the response shown first won, 0.5 without "
        "position bias.",
        (
            Column("Judge"),
            *(Column(name.capitalize(), "number") for name in _COUNTS),
            Column("First position", "number"),
        ),
        [_counts(name, judge) for name, judge in judges.items()],
    )
    own = table(
        "Agreement of each model judge with held-out comparisons.",
        (Column("Judge"), *SHARE_COLUMNS, Column("Pairs", "number")),
        [
            (name, *share_cells(group(accuracy), "accuracy"), number(accuracy.get("pairs")))
            for name, judge in judges.items()
            if isinstance(accuracy := judge.get("accuracy"), dict)
        ],
    )
    judge_warnings = [
        note
        for name, judge in judges.items()
        for note in warnings([f"{name}: {text}" for text in judge.get("warnings") or []])
    ]
    return (*rates, *counts, *own, *judge_warnings)


def _rates(name: str, judge: Mapping[str, Any]) -> list[tuple[Cell, ...]]:
    kind = _KINDS.get(str(judge.get("kind")), str(judge.get("kind", "")))
    opponent = {"sft": "against SFT", "references": "against the references"}
    against = opponent.get(str(judge.get("opponent")), "")
    description = ", ".join(part for part in (kind, str(judge.get("model") or ""), against) if part)
    rows: list[tuple[Cell, ...]] = [(f"{name} ({description})", *share_cells(judge, "win_rate"))]
    if finite(judge.get(_LENGTH_CONTROLLED)) is not None:
        rows.append((f"{name}, length-controlled", *share_cells(judge, _LENGTH_CONTROLLED)))
    return rows


def _counts(name: str, judge: Mapping[str, Any]) -> tuple[Cell, ...]:
    bias = judge.get("position_bias")
    position = bias if isinstance(bias, dict) else {}
    counted = (number(judge[key]) if key in judge else "" for key in _COUNTS)
    return (name, *counted, estimate(position, "first_share", share))
