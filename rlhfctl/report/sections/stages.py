"""Status and key metrics of every stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.report.blocks import Cell, Column, Group, estimate_cells, grouped
from rlhfctl.report.numbers import duration, number, share
from rlhfctl.stage_table import EVALUATION, PPO, REWARD_MODEL, SFT

if TYPE_CHECKING:
    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.stage_table import Stage


@dataclass(frozen=True)
class _StageRows:
    """Key metrics of a stage.

    Attributes:
        stage: The stage.
        before_and_after: (label, metric before training, metric after training).
        shares: (label, metric) with 95 % intervals.
        numbers: (label, metric).
    """

    stage: Stage
    before_and_after: tuple[tuple[str, str, str], ...] = ()
    shares: tuple[tuple[str, str], ...] = ()
    numbers: tuple[tuple[str, str], ...] = ()


_ROWS = (
    _StageRows(
        SFT,
        before_and_after=(
            ("Held-out loss, nats per token", "eval_loss_before", "eval_loss"),
            ("Held-out token accuracy", "token_accuracy_before", "token_accuracy"),
        ),
        numbers=(("Training rows", "train_rows"), ("Held-out rows", "held_out_rows")),
    ),
    _StageRows(
        REWARD_MODEL,
        shares=(
            ("Held-out accuracy", "accuracy"),
            ("Accuracy on gold labels", "gold_accuracy"),
            ("Baseline: always prefer the longer response", "length_accuracy"),
        ),
        numbers=(
            ("Held-out pairs", "pairs"),
            ("Raw score, mean", "score_mean"),
            ("Raw score, standard deviation", "score_std"),
        ),
    ),
    _StageRows(
        PPO,
        numbers=(
            ("Episodes", "episodes"),
            ("Score", "score"),
            ("KL to the reference, nats per response", "kl"),
            ("Response length, tokens", "response_length"),
            ("Fraction ended by EOS", "eos_share"),
            ("Episodes per second", "episodes_per_second"),
        ),
    ),
    _StageRows(
        EVALUATION,
        shares=(
            ("Gold win rate of PPO over SFT", "gold_win_rate"),
            ("Proxy win rate of PPO over SFT", "proxy_win_rate"),
        ),
        numbers=(("Held-out prompts", "prompts"),),
    ),
)


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return the key metrics of every stage, in pipeline order."""
    return grouped(
        "Key metrics of each stage. An arrow reads “before → after training”.",
        (Column("Metric"), Column("Value", "number"), Column("95 % CI", "number")),
        [_stage(facts, rows) for rows in _ROWS],
    )


def _stage(facts: RunFacts, spec: _StageRows) -> Group:
    stage = spec.stage
    record = facts.records.get(stage.name)
    if record is None:
        state = "unfinished" if facts.curves.get(stage.name) else "not run yet"
        return Group((), stage.title, f"{state}: rlhfctl {stage.command}")
    metrics = {**record.metrics, **(facts.evaluation if stage is EVALUATION else {})}
    rows: list[tuple[Cell, ...]] = [
        (label, f"{number(metrics.get(before))} \N{RIGHTWARDS ARROW} {number(metrics[after])}", "")
        for label, before, after in spec.before_and_after
        if after in metrics
    ]
    rows += [
        (label, *estimate_cells(metrics, name, share))
        for label, name in spec.shares
        if name in metrics
    ]
    rows += [(label, number(metrics[name]), "") for label, name in spec.numbers if name in metrics]
    return Group(tuple(rows), stage.title, duration(record.seconds))
