"""Drift of PPO's writing style from SFT's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.report.blocks import Cell, Column, estimate_cell, table
from rlhfctl.report.numbers import as_estimate, fraction, number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.estimate import Estimate
    from rlhfctl.results.evaluation import Drift, LengthDistribution, Phrase, StyleMetrics

MOST_PHRASES = 30
_METRICS: tuple[
    tuple[str, Callable[[StyleMetrics], Estimate | float | None], Callable[[Any], str]], ...
] = (
    ("KL, nats per token", lambda style: style.kl_per_token, number),
    ("Entropy, nats per token", lambda style: style.entropy, number),
    ("Distinct words", lambda style: style.distinct_1, fraction),
    ("Distinct bigrams", lambda style: style.distinct_2, fraction),
    ("Distinct trigrams", lambda style: style.distinct_3, fraction),
    ("Self-BLEU", lambda style: style.self_bleu, fraction),
    ("Repeated n-grams", lambda style: style.repeated_ngrams, fraction),
    ("Truncated", lambda style: style.truncated, fraction),
    ("Hedging words", lambda style: style.hedging, fraction),
    ("Certainty words", lambda style: style.certainty, fraction),
)
_LENGTHS: tuple[tuple[str, Callable[[LengthDistribution], float]], ...] = (
    ("Length, mean", lambda length: length.mean),
    ("Length, 5th percentile", lambda length: length.p5),
    ("Length, 25th percentile", lambda length: length.p25),
    ("Length, median", lambda length: length.median),
    ("Length, 75th percentile", lambda length: length.p75),
    ("Length, 95th percentile", lambda length: length.p95),
)


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return both policies' metrics side by side, and the phrases that grew most."""
    drift = facts.evaluation.drift if facts.evaluation else None
    return (
        ()
        if drift is None
        else (
            *_metrics(drift, facts.policy_name),
            *_phrases(drift.phrases or [], facts.policy_name),
        )
    )


def _metrics(drift: Drift, policy: str) -> tuple[Block, ...]:
    policies = (drift.sft, drift.ppo)
    rows: list[tuple[Cell, ...]] = []
    for label, metric, write in _METRICS:
        cells = [
            estimate_cell(as_estimate(metric(style)), write) if style else None
            for style in policies
        ]
        if any(cells):
            rows.append((label, *cells))
    if any(policies):
        rows += [
            (label, *(number(value(style.length) if style else None) for style in policies))
            for label, value in _LENGTHS
        ]
    return table(
        "Means over responses with 95 % CIs; lengths in tokens.",
        (Column("Metric"), Column("SFT", "number"), Column(policy, "number")),
        rows,
    )


def _phrases(phrases: Sequence[Phrase], policy: str) -> tuple[Block, ...]:
    return table(
        f"Phrases that {policy} uses more than SFT, by log-odds with an informative prior (Monroe et al. "
        "2008); z is the log-odds in standard deviations.",
        (
            Column("Phrase", "model"),
            Column("SFT", "number"),
            Column(policy, "number"),
            Column("Log-odds", "number"),
            Column("z", "number"),
        ),
        [
            (
                one.phrase,
                *(number(value) for value in (one.sft_count, one.ppo_count, one.log_odds, one.z)),
            )
            for one in phrases[:MOST_PHRASES]
        ],
    )
