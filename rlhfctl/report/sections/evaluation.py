"""Policy evaluation: PPO against SFT on held-out prompts, by gold and proxy reward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.report.blocks import SHARE_COLUMNS, Cell, Column, Estimate, objects, share_cells, table
from rlhfctl.report.numbers import MISSING, finite, fraction, interval, number, signed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts

_WIN_RATES = (
    ("Gold", "gold_win_rate"),
    ("Gold, length-controlled", "gold_length_controlled_win_rate"),
    ("Proxy", "proxy_win_rate"),
    ("Proxy, length-controlled", "proxy_length_controlled_win_rate"),
)
_POLICY_METRICS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("Gold reward", "gold", number),
    ("Proxy reward", "proxy", number),
    ("KL, nats per response", "kl", number),
    ("Length, tokens", "length", number),
    ("Ended by EOS", "eos_share", fraction),
    ("Repeated n-grams", "repetition", fraction),
    ("Distinct n-grams", "distinct", fraction),
)


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return the win rates, and the metrics of both policies side by side."""
    metrics = facts.evaluation
    rates = table(
        f"Share of the {number(metrics.get('prompts'))} held-out prompts on which PPO's response "
        "scores higher than SFT's; ties count 0.5.",
        (Column("Win rate of PPO over SFT"), *SHARE_COLUMNS),
        [
            (label, *share_cells(metrics, name))
            for label, name in _WIN_RATES
            if finite(metrics.get(name)) is not None
        ],
    )
    policies = objects(metrics.get("policies"))
    sft, ppo = policies.get("sft", {}), policies.get("ppo", {})
    gold = (
        " Gold is the true reward, never shown to training; the proxy is the score that PPO was "
        "trained on."
        if "gold_win_rate" in metrics
        else ""
    )
    both = table(
        f"Means over responses; differences with 95 % CIs.{gold}",
        (
            Column("Metric"),
            Column("SFT", "number"),
            Column("PPO", "number"),
            Column("Difference", "number"),
        ),
        [
            _side_by_side(label, name, write, sft, ppo, metrics)
            for label, name, write in _POLICY_METRICS
            if name in sft or name in ppo
        ],
    )
    return (*rates, *both) if both else ()


def _side_by_side(
    label: str,
    name: str,
    write: Callable[[Any], str],
    sft: Mapping[str, Any],
    ppo: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> tuple[Cell, ...]:
    before, after = finite(sft.get(name)), finite(ppo.get(name))
    gain = MISSING if before is None or after is None else signed(after - before, write)

    def with_sign(value: Any) -> str:
        return signed(value, write)

    ends = interval(metrics, f"{name}_gain", with_sign)
    return label, write(sft.get(name)), write(ppo.get(name)), Estimate(gain, ends)
