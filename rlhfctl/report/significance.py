"""Judges of PPO against SFT, and the side of 0.5 on which each win rate's CI lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.report.numbers import finite, interval, share, value_of

if TYPE_CHECKING:
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.estimate import Estimate
    from rlhfctl.results.evaluation import EvaluationResult, JudgeResult

# Ordered by independence of PPO's training reward, most independent first.
_KINDS = ("humans", "endpoint", "function", "reward_model")
_NAMES = {"humans": "people", "held_out_rm": "the held-out reward model"}


@dataclass(frozen=True)
class Judge:
    """One judge of PPO against SFT.

    Attributes:
        kind: `gold`, or one of the kinds of judges.
        name: Name in a sentence.
        side: Position of the 95 % CI relative to 0.5: `above`, `below` or `neither`.
        rate: Formatted win rate.
        controlled: Side of the length-controlled win rate; empty if it has none.
    """

    kind: str
    name: str
    side: str
    rate: str
    controlled: str = ""


def judges_of(facts: RunFacts) -> list[Judge]:
    """Return the judges of PPO against SFT, the most independent first."""
    comparison = facts.comparison
    gold = _judge(
        "gold", "gold", comparison.gold_win_rate, comparison.gold_length_controlled_win_rate
    )
    ranked = [gold]
    for label, judge in independent_judges(facts.evaluation):
        rates = judge.preferences
        ranked.append(_judge(judge.kind, label, rates.win_rate, rates.length_controlled_win_rate))
    return [judge for judge in ranked if judge is not None]


def independent_judges(evaluation: EvaluationResult | None) -> list[tuple[str, JudgeResult]]:
    """Return names in a sentence and results of the judges of PPO against SFT except gold.

    The most independent of PPO's training reward comes first.
    """
    judges = (evaluation.judges if evaluation else None) or {}
    return [
        (_NAMES.get(name) or _NAMES.get(kind) or f"the judge {name}", judge)
        for kind in _KINDS
        for name, judge in judges.items()
        if judge.kind == kind and judge.opponent == "sft"
    ]


def side(rate: Estimate | None) -> str:
    """Return the side of 0.5 on which a CI lies; `neither` if it is missing."""
    low, high = (finite(rate.low), finite(rate.high)) if rate else (None, None)
    if low is not None and low > 0.5:
        return "above"
    return "below" if high is not None and high < 0.5 else "neither"


def win_rate(judge: str, rate: Estimate | None) -> str:
    """Return a formatted win rate with its CI."""
    ends = interval(rate, share) or "no interval"
    return f"{judge} win rate {share(value_of(rate))} ({ends})"


def _judge(
    kind: str, name: str, rate: Estimate | None, controlled: Estimate | None
) -> Judge | None:
    """Return a judge; None without a win rate."""
    if value_of(rate) is None:
        return None
    has_controlled = value_of(controlled) is not None
    return Judge(
        kind,
        name,
        side(rate),
        win_rate(name.removeprefix("the "), rate),
        side(controlled) if has_controlled else "",
    )
