"""Win rates by other judges: a held-out reward model, an endpoint, a function, people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.report.blocks import (
    SHARE_COLUMNS,
    Cell,
    Column,
    estimate_cell,
    share_cells,
    table,
    warnings,
)
from rlhfctl.report.numbers import number, share, value_of

if TYPE_CHECKING:
    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.evaluation import JudgeResult

_KINDS = {"reward_model": "a reward model", "endpoint": "an endpoint"} | {
    "function": "a function",
    "humans": "people",
}
_OPPONENTS = {"sft": "against SFT", "references": "against the references"}
_COUNTS = ("Prompts", "Wins", "Ties", "Losses", "Refusals", "Unparsable")


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return win rates, judgment counts, agreement and warnings per judge."""
    judges = (facts.evaluation.judges if facts.evaluation else None) or {}
    if not judges:
        return ()
    rates = table(
        f"Share of prompts on which the judge prefers {facts.policy_name}'s response; ties count "
        "0.5. "
        "Length-controlled: as if both responses had the same length (AlpacaEval 2).",
        (Column("Judge"), *SHARE_COLUMNS),
        [row for name, judge in judges.items() for row in _rates(name, judge)],
    )
    counts = table(
        "Judgment counts. First position: how often the response shown first won, 0.5 without "
        "position bias.",
        (
            Column("Judge"),
            *(Column(name, "number") for name in _COUNTS),
            Column("First position", "number"),
        ),
        [_counts(name, judge) for name, judge in judges.items()],
    )
    own = table(
        "Agreement of each model judge with held-out comparisons.",
        (Column("Judge"), *SHARE_COLUMNS, Column("Pairs", "number")),
        [
            (name, *share_cells(judge.accuracy.accuracy), number(judge.accuracy.pairs))
            for name, judge in judges.items()
            if judge.accuracy is not None
        ],
    )
    judge_warnings = warnings(
        f"{name}: {text}" for name, judge in judges.items() for text in judge.preferences.warnings
    )
    return (*rates, *counts, *own, *judge_warnings)


def _rates(name: str, judge: JudgeResult) -> list[tuple[Cell, ...]]:
    against = _OPPONENTS.get(judge.opponent, "")
    description = ", ".join(part for part in (_KINDS[judge.kind], judge.model, against) if part)
    rows: list[tuple[Cell, ...]] = [
        (f"{name} ({description})", *share_cells(judge.preferences.win_rate))
    ]
    controlled = judge.preferences.length_controlled_win_rate
    if value_of(controlled) is not None:
        rows.append((f"{name}, length-controlled", *share_cells(controlled)))
    return rows


def _counts(name: str, judge: JudgeResult) -> tuple[Cell, ...]:
    preferences, bias = judge.preferences, judge.position_bias
    counts = (preferences.prompts, preferences.wins, preferences.ties, preferences.losses)
    failures = (judge.refusals, judge.unparsable)
    position = estimate_cell(bias.first_share, share) if bias else None
    return (name, *map(number, (*counts, *failures)), position)
