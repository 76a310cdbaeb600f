"""Samples to read first: a typical one, the best gain, the worst loss and a tie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.report.numbers import number, signed
from rlhfctl.report.samples import Sample, change_of, held_out
from rlhfctl.stage_table import PPO

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rlhfctl.results.samples import EvaluationSample


@dataclass(frozen=True)
class Highlight:
    """A sample with the reason why it is shown."""

    title: str
    note: str
    sample: Sample


@dataclass(frozen=True)
class _Scored:
    """A row and its change of `judge`'s score from SFT to PPO."""

    row: EvaluationSample
    judge: str
    change: float

    @property
    def differs(self) -> bool:
        return self.row.responses.get("sft") != self.row.responses.get("ppo")


def typical(rows: Sequence[EvaluationSample], policy: str = PPO.title) -> Highlight | None:
    """Return the sample with the median change among those whose responses differ."""
    scored = sorted(_scored(rows), key=lambda one: one.change)
    differing = [one for one in scored if one.differs] or scored
    if not differing:
        return None
    return _highlight(
        "A typical sample", "median change", differing[(len(differing) - 1) // 2], policy
    )


def best_worst_and_tie(
    rows: Sequence[EvaluationSample], policy: str = PPO.title
) -> list[Highlight]:
    """Return the largest rise, the largest fall and a tie of the score, where there are any.

    Of several ties, one whose responses differ comes first.
    """
    scored = list(_scored(rows))
    best = max(scored, key=lambda one: one.change, default=None)
    worst = min(scored, key=lambda one: one.change, default=None)
    ties = sorted((one for one in scored if one.change == 0), key=lambda one: not one.differs)
    shown = []
    if best is not None and best.change > 0:
        shown.append(_highlight("Best gain", "largest rise", best, policy))
    if worst is not None and worst.change < 0:
        shown.append(_highlight("Worst loss", "largest fall", worst, policy))
    if ties:
        same = "" if ties[0].differs else ", same response"
        shown.append(_highlight("A tie", f"no change{same}", ties[0], policy))
    return shown


def _scored(rows: Iterable[EvaluationSample]) -> Iterable[_Scored]:
    """Yield the rows that have both responses and a score of both; gold counts before the proxy."""
    for row in rows:
        for judge in ("gold", "proxy"):
            change = change_of(row, judge)
            if change is not None and {"sft", "ppo"} <= row.responses.keys():
                yield _Scored(row, judge, change)
                break


def _highlight(title: str, reason: str, scored: _Scored, policy: str = PPO.title) -> Highlight:
    (sample,) = held_out([scored.row], policy)
    size = f" ({signed(scored.change, number)})" if scored.change else ""
    return Highlight(title, f"{reason} of {scored.judge}{size}", sample)
