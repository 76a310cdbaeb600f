"""Judges of PPO against SFT, and the side of 0.5 on which each win rate's CI lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.report.blocks import objects
from rlhfctl.report.numbers import finite, interval, share

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def judges_of(metrics: Mapping[str, Any]) -> list[Judge]:
    """Return the judges of PPO against SFT, the most independent first."""
    ranked = []
    if finite(metrics.get("gold_win_rate")) is not None:
        ranked.append(_judge("gold", "gold", metrics, "gold_"))
    judges = objects(metrics.get("judges"))
    for kind in _KINDS:
        for name, judge in judges.items():
            against_sft = judge.get("kind") == kind and judge.get("opponent", "sft") == "sft"
            if against_sft and finite(judge.get("win_rate")) is not None:
                label = _NAMES.get(name) or _NAMES.get(kind) or f"the judge {name}"
                ranked.append(_judge(kind, label, judge, ""))
    return ranked


def side(metrics: Mapping[str, Any], name: str) -> str:
    """Return the side of 0.5 on which a CI lies; `neither` if it is missing."""
    low, high = finite(metrics.get(f"{name}_low")), finite(metrics.get(f"{name}_high"))
    if low is not None and low > 0.5:
        return "above"
    return "below" if high is not None and high < 0.5 else "neither"


def rate(judge: str, metrics: Mapping[str, Any], name: str) -> str:
    """Return a formatted win rate with its CI."""
    ends = interval(metrics, name, share) or "no interval"
    return f"{judge} win rate {share(metrics.get(name))} ({ends})"


def policy(metrics: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the metrics of one policy; empty if it was not evaluated."""
    return objects(metrics.get("policies")).get(name, {})


def _judge(kind: str, name: str, metrics: Mapping[str, Any], prefix: str) -> Judge:
    controlled = f"{prefix}length_controlled_win_rate"
    has_controlled = finite(metrics.get(controlled)) is not None
    return Judge(
        kind,
        name,
        side(metrics, f"{prefix}win_rate"),
        rate(name.removeprefix("the "), metrics, f"{prefix}win_rate"),
        side(metrics, controlled) if has_controlled else "",
    )
