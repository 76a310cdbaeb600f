"""Summary table of a command: headline metrics and duration per stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from rlhfctl.console import duration, safe
from rlhfctl.stage_table import EVALUATION, PPO, REWARD_MODEL, SFT, Stage, stage_named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rlhfctl.pipeline import StageResult

    Headline = Callable[[Mapping[str, Any]], list[str]]

_HEADLINES: dict[Stage, Headline] = {}


def _headline_of(stage: Stage) -> Callable[[Headline], Headline]:
    """Register a function that returns a stage's headline metrics as lines."""

    def register(lines: Headline) -> Headline:
        _HEADLINES[stage] = lines
        return lines

    return register


def results_table(results: Sequence[StageResult]) -> Table:
    """Return a table with the headline metrics and the duration of each stage."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stage", style="bold", no_wrap=True)
    table.add_column("result", overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    for result in results:
        time = "up to date" if result.status == "skipped" else duration(result.record.seconds)
        stage = stage_named(result.stage)
        lines = headline(stage, result.record.metrics)
        table.add_row(stage.title, safe("\n".join(lines)), time)
    return table


def headline(stage: Stage, metrics: Mapping[str, Any]) -> list[str]:
    """Return a stage's headline metrics as lines; absent metrics are omitted."""
    return [line for line in _HEADLINES[stage](metrics) if line]


@_headline_of(SFT)
def _sft(metrics: Mapping[str, Any]) -> list[str]:
    return [
        _change(metrics, "eval_loss_before", "eval_loss", "held-out loss", "{:.3f}"),
        _change(metrics, "token_accuracy_before", "token_accuracy", "token accuracy", "{:.1%}"),
    ]


@_headline_of(REWARD_MODEL)
def _rm(metrics: Mapping[str, Any]) -> list[str]:
    return [
        _interval(metrics, "accuracy", "held-out accuracy"),
        _interval(metrics, "length_accuracy", 'baseline "prefer the longer response"'),
        _interval(metrics, "gold_accuracy", "accuracy on gold-ordered pairs"),
    ]


@_headline_of(PPO)
def _ppo(metrics: Mapping[str, Any]) -> list[str]:
    skipped = metrics.get("skipped_minibatches")
    return [
        _metric(metrics, "score", "score {:.3g}"),
        _metric(metrics, "kl", "KL {:.3g} nats per response"),
        _metric(metrics, "response_length", "mean response length {:.3g} tokens"),
        f"{skipped:g} minibatches skipped" if skipped else "",
    ]


@_headline_of(EVALUATION)
def _eval(metrics: Mapping[str, Any]) -> list[str]:
    policies = metrics.get("policies", {})
    sft, ppo = policies.get("sft", {}), policies.get("ppo", {})
    pairs = {"before": sft, "after": ppo}
    return [
        _interval(metrics, "gold_win_rate", "PPO win rate over SFT (gold reward)"),
        _interval(metrics, "proxy_win_rate", "PPO win rate over SFT (reward model score)"),
        _versus(pairs, "gold", "gold reward"),
        _versus(pairs, "proxy", "score"),
        _metric(ppo, "kl", "KL {:.3g} nats per response"),
    ]


def _number(metrics: Mapping[str, Any], name: str) -> float | None:
    value = metrics.get(name)
    return value if isinstance(value, int | float) else None


def _metric(metrics: Mapping[str, Any], name: str, template: str) -> str:
    value = _number(metrics, name)
    return "" if value is None else template.format(value)


def _change(metrics: Mapping[str, Any], before: str, after: str, label: str, template: str) -> str:
    first, last = _number(metrics, before), _number(metrics, after)
    if last is None:
        return ""
    shown = template.format(last)
    return f"{label} {shown}" if first is None else f"{label} {template.format(first)} -> {shown}"


def _versus(pairs: Mapping[str, Mapping[str, Any]], name: str, label: str) -> str:
    values = {when: metrics.get(name) for when, metrics in pairs.items()}
    return _change(values, "before", "after", label, "{:.3g}")


def _interval(metrics: Mapping[str, Any], name: str, label: str) -> str:
    value = _number(metrics, name)
    low, high = _number(metrics, f"{name}_low"), _number(metrics, f"{name}_high")
    if value is None:
        return ""
    shown = f"{label} {value:.1%}"
    return shown if low is None or high is None else f"{shown} ({low:.1%} to {high:.1%})"
