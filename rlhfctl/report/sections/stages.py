"""Every stage, how far it is, and its key metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.report.blocks import Cell, Column, Group, estimate_cells, grouped
from rlhfctl.report.numbers import duration, number, share
from rlhfctl.report.sources import COMMANDS, STAGES, TITLES, RunFacts

if TYPE_CHECKING:
    from rlhfctl.report.blocks import Block

_BEFORE_AND_AFTER = {
    "sft": (
        ("Held-out loss, nats a token", "eval_loss_before", "eval_loss"),
        ("Held-out token accuracy", "token_accuracy_before", "token_accuracy"),
    )
}
_SHARES = {
    "rm": (
        ("Held-out accuracy", "accuracy"),
        ("Accuracy against gold", "gold_accuracy"),
        ("Accuracy of the longer one", "length_accuracy"),
    ),
    "eval": (
        ("Gold win rate of PPO over SFT", "gold_win_rate"),
        ("Proxy win rate of PPO over SFT", "proxy_win_rate"),
    ),
}
_NUMBERS = {
    "sft": (("Training rows", "train_rows"), ("Held-out rows", "held_out_rows")),
    "rm": (
        ("Held-out pairs", "pairs"),
        ("Raw score, mean", "score_mean"),
        ("Raw score, standard deviation", "score_std"),
    ),
    "ppo": (
        ("Episodes", "episodes"),
        ("Score", "score"),
        ("KL to the reference, nats a response", "kl"),
        ("Response length, tokens", "response_length"),
        ("Share ended by EOS", "eos_share"),
        ("Episodes a second", "episodes_per_second"),
    ),
    "eval": (("Held-out prompts", "prompts"),),
}


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return the key metrics of every stage, in the order of the pipeline."""
    return grouped(
        "Key metrics of each stage. An arrow reads “before → after”.",
        (Column("Figure"), Column("Value", "number"), Column("95 % interval", "number")),
        [_stage(facts, stage) for stage in STAGES],
    )


def _stage(facts: RunFacts, stage: str) -> Group:
    record = facts.records.get(stage)
    if record is None:
        state = "unfinished" if facts.curves.get(stage) else "not run yet"
        return Group((), TITLES[stage], f"{state}: {COMMANDS[stage]}")
    metrics = {**record.metrics, **(facts.evaluation if stage == "eval" else {})}
    rows: list[tuple[Cell, ...]] = [
        (label, f"{number(metrics.get(before))} \N{RIGHTWARDS ARROW} {number(metrics[after])}", "")
        for label, before, after in _BEFORE_AND_AFTER.get(stage, ())
        if after in metrics
    ]
    rows += [
        (label, *estimate_cells(metrics, name, share))
        for label, name in _SHARES.get(stage, ())
        if name in metrics
    ]
    rows += [
        (label, number(metrics[name]), "") for label, name in _NUMBERS[stage] if name in metrics
    ]
    return Group(tuple(rows), TITLES[stage], duration(record.seconds))
