"""Policy evaluation: PPO against SFT on held-out prompts, by gold and proxy reward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.report.blocks import SHARE_COLUMNS, Cell, Column, EstimateCell, share_cells, table
from rlhfctl.report.numbers import (
    MISSING,
    finite,
    fraction,
    interval,
    number,
    signed,
    value_of,
)
from rlhfctl.stage_table import PPO

if TYPE_CHECKING:
    from collections.abc import Callable

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.estimate import Estimate
    from rlhfctl.results.evaluation import PolicyMetrics

_POLICY_METRICS: tuple[
    tuple[str, Callable[[PolicyMetrics], float | None], Callable[[Any], str]], ...
] = (
    ("Gold reward", lambda policy: value_of(policy.gold), number),
    ("Proxy reward", lambda policy: value_of(policy.proxy), number),
    ("Objective score", lambda policy: value_of(policy.objective_score), number),
    ("KL, nats per response", lambda policy: policy.kl.value, number),
    ("Length, tokens", lambda policy: policy.length, number),
    ("Ended by EOS", lambda policy: policy.eos_share, fraction),
    ("Repeated n-grams", lambda policy: policy.repetition, fraction),
    ("Distinct n-grams", lambda policy: policy.distinct, fraction),
)


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return the win rates, and the metrics of both policies side by side."""
    if facts.evaluation is None:
        return ()
    comparison = facts.comparison
    win_rates = (
        ("Gold", comparison.gold_win_rate),
        ("Gold, length-controlled", comparison.gold_length_controlled_win_rate),
        ("Proxy", comparison.proxy_win_rate),
        ("Proxy, length-controlled", comparison.proxy_length_controlled_win_rate),
        ("Objective score", comparison.objective_score_win_rate),
    )
    rates = table(
        f"Share of the {number(facts.evaluation.prompts)} held-out prompts on which "
        f"{facts.policy_name}'s response scores higher than SFT's; ties count 0.5.",
        (Column(f"Win rate of {facts.policy_name} over SFT"), *SHARE_COLUMNS),
        [(label, *share_cells(rate)) for label, rate in win_rates if value_of(rate) is not None],
    )
    sft, ppo = facts.policy("sft"), facts.policy("ppo")
    gains = {
        "Gold reward": comparison.gold_gain,
        "Proxy reward": comparison.proxy_gain,
        "Objective score": comparison.objective_score_gain,
    }
    rows: list[tuple[Cell, ...]] = []
    for label, metric, write in _POLICY_METRICS:
        before, after = (metric(policy) if policy else None for policy in (sft, ppo))
        if before is not None or after is not None:
            rows.append(_side_by_side(label, before, after, gains.get(label), write))
    proxy = (
        "the proxy is the score that PPO was trained on"
        if facts.policy_name == PPO.title
        else "the proxy is the reward model's score"
    )
    gold = (
        f" Gold is the true reward, never shown to training; {proxy}."
        if comparison.gold_win_rate is not None
        else ""
    )
    objective = (
        " The objective score is the proxy as PPO maximises it: clipped, and ppo.missing_eos_score "
        "where a response did not end."
        if comparison.objective_score_gain is not None
        else ""
    )
    both = table(
        f"Means over responses; differences with 95 % CIs.{gold}{objective}",
        (
            Column("Metric"),
            Column("SFT", "number"),
            Column(facts.policy_name, "number"),
            Column("Difference", "number"),
        ),
        rows,
    )
    return (*rates, *both) if both else ()


def _side_by_side(
    label: str,
    sft: float | None,
    ppo: float | None,
    gain: Estimate | None,
    write: Callable[[Any], str],
) -> tuple[Cell, ...]:
    before, after = finite(sft), finite(ppo)
    change = MISSING if before is None or after is None else signed(after - before, write)

    def with_sign(value: Any) -> str:
        return signed(value, write)

    return label, write(sft), write(ppo), EstimateCell(change, interval(gain, with_sign))
