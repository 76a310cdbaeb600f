"""Evaluation results of a model card, with their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.report.numbers import finite, interval, number, share, value_of
from rlhfctl.report.significance import independent_judges
from rlhfctl.stage_table import DPO, PPO, REWARD_MODEL, SFT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.estimate import Estimate

_PROMPTS = "held-out prompts"
_COMPARISONS = "held-out comparisons"
_DEMONSTRATIONS = "held-out demonstrations"


@dataclass(frozen=True)
class Measured:
    """One metric of a card.

    Attributes:
        key: Name for programs.
        title: Name for people.
        value: Its value.
        text: Its value, formatted.
        interval: Its 95 % interval, formatted; empty if it has none.
        data: What it was measured on.
    """

    key: str
    title: str
    value: float
    text: str
    interval: str
    data: str


def measured(facts: RunFacts, stage: str) -> list[Measured]:
    """Return the metrics of a stage's model: those with intervals where the run has them.

    Args:
        facts: The run.
        stage: sft, rm or ppo.
    """
    metrics = {
        SFT.name: _of_sft,
        REWARD_MODEL.name: _of_reward_model,
        PPO.name: _of_policy,
        DPO.name: _of_dpo,
    }[stage](facts)
    return [metric for metric in metrics if metric is not None]


def _of_sft(facts: RunFacts) -> Iterator[Measured | None]:
    result = facts.sft
    if result is None:
        return
    yield _plain("loss", "loss, nats per response token", result.eval_loss, _DEMONSTRATIONS)
    yield _plain("token_accuracy", "token accuracy", result.token_accuracy, _DEMONSTRATIONS)


def _of_reward_model(facts: RunFacts) -> Iterator[Measured | None]:
    result = facts.reward_model
    if result is None:
        return
    yield _rate("accuracy", "accuracy", result.accuracy, _COMPARISONS)
    yield _rate(
        "length_accuracy",
        "accuracy of always preferring the longer response",
        result.length_accuracy,
        _COMPARISONS,
    )


def _of_dpo(facts: RunFacts) -> Iterator[Measured | None]:
    result = facts.dpo
    if result is None:
        return
    yield _rate("accuracy", "accuracy of the implicit reward", result.accuracy, _COMPARISONS)


def _of_policy(facts: RunFacts) -> Iterator[Measured | None]:
    comparison = facts.comparison
    yield _rate(
        "gold_win_rate", "win rate against SFT, by gold", comparison.gold_win_rate, _PROMPTS
    )
    for name, judge in independent_judges(facts.evaluation):
        yield _rate(
            "win_rate", f"win rate against SFT, by {name}", judge.preferences.win_rate, _PROMPTS
        )
    yield _rate(
        "proxy_win_rate",
        "win rate against SFT, by its training reward",
        comparison.proxy_win_rate,
        _PROMPTS,
    )
    policy = facts.policy(PPO.name)
    if policy is not None:
        value = finite(policy.kl.value)
        if value is not None:
            yield Measured(
                "kl", "KL to SFT, nats", value, number(value), interval(policy.kl), _PROMPTS
            )
        yield _plain("length", "mean response length, tokens", policy.length, _PROMPTS)


def _rate(key: str, title: str, estimate: Estimate | None, data: str) -> Measured | None:
    value = value_of(estimate)
    if value is None:
        return None
    return Measured(key, title, value, share(value), interval(estimate, share), data)


def _plain(key: str, title: str, figure: float, data: str) -> Measured | None:
    value = finite(figure)
    return None if value is None else Measured(key, title, value, number(value), "", data)
