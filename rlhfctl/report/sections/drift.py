"""Drift of PPO's writing style from SFT's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.report.blocks import Cell, Column, estimate, objects, table
from rlhfctl.report.numbers import finite, fraction, number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts

MOST_PHRASES = 30
_METRICS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("KL, nats per token", "kl_per_token", number),
    ("Entropy, nats per token", "entropy", number),
    ("Distinct words", "distinct_1", fraction),
    ("Distinct bigrams", "distinct_2", fraction),
    ("Distinct trigrams", "distinct_3", fraction),
    ("Self-BLEU", "self_bleu", fraction),
    ("Repeated n-grams", "repeated_ngrams", fraction),
    ("Truncated", "truncated", fraction),
    ("Hedging words", "hedging", fraction),
    ("Certainty words", "certainty", fraction),
)
_LENGTHS = (
    ("mean", "Length, mean"),
    ("p5", "Length, 5th percentile"),
    ("p25", "Length, 25th percentile"),
    ("median", "Length, median"),
    ("p75", "Length, 75th percentile"),
    ("p95", "Length, 95th percentile"),
)


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return both policies' metrics side by side, and the phrases that grew most."""
    value = facts.evaluation.get("drift")
    drift = value if isinstance(value, dict) else {}
    policies = objects({name: drift.get(name) for name in ("sft", "ppo")})
    return (*_metrics(policies), *_phrases(drift.get("phrases")))


def _metrics(policies: Mapping[str, Mapping[str, Any]]) -> tuple[Block, ...]:
    sides = [policies.get(name, {}) for name in ("sft", "ppo")]
    rows: list[tuple[Cell, ...]] = []
    for label, name, write in _METRICS:
        if any(finite(side.get(name)) is not None for side in sides):
            rows.append((label, *(estimate(side, name, write) for side in sides)))
    lengths = [side.get("length") for side in sides]
    measured = [length if isinstance(length, dict) else {} for length in lengths]
    for name, label in _LENGTHS:
        if any(name in length for length in measured):
            rows.append((label, *(number(length.get(name)) for length in measured)))
    return table(
        "Means over responses with 95 % CIs; lengths in tokens.",
        (Column("Metric"), Column("SFT", "number"), Column("PPO", "number")),
        rows,
    )


def _phrases(value: Any) -> tuple[Block, ...]:
    phrases = [phrase for phrase in value or [] if isinstance(phrase, dict)]
    return table(
        "Phrases that PPO uses more than SFT, by log-odds with an informative prior (Monroe et al. "
        "2008); z is the log-odds in standard deviations.",
        (
            Column("Phrase", "model"),
            Column("SFT", "number"),
            Column("PPO", "number"),
            Column("Log-odds", "number"),
            Column("z", "number"),
        ),
        [
            (
                str(phrase.get("phrase", "")),
                *(number(phrase.get(key)) for key in ("sft_count", "ppo_count", "log_odds", "z")),
            )
            for phrase in phrases[:MOST_PHRASES]
        ],
    )
