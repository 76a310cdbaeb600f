"""What a command achieved, in one line a stage, rendered from the stages' metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from rlhfctl.console import duration, safe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rlhfctl.pipeline import StageResult

_TITLES = {"sft": "SFT", "rm": "reward model", "ppo": "PPO", "eval": "evaluation"}


def results_table(results: Sequence[StageResult]) -> Table:
    """Return a table of the stages: what each achieved, and how long it took."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stage", style="bold", no_wrap=True)
    table.add_column("result", overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    for result in results:
        time = "up to date" if result.status == "skipped" else duration(result.record.seconds)
        lines = headline(result.stage, result.record.metrics)
        table.add_row(_TITLES[result.stage], safe("\n".join(lines)), time)
    return table


def headline(stage: str, metrics: Mapping[str, Any]) -> list[str]:
    """Return a stage's metrics in a line or more; metrics that are not there are left out."""
    return [line for line in _LINES[stage](metrics) if line]


def _sft(metrics: Mapping[str, Any]) -> list[str]:
    return [
        _change(metrics, "eval_loss_before", "eval_loss", "held-out loss", "{:.3f}"),
        _change(metrics, "token_accuracy_before", "token_accuracy", "token accuracy", "{:.1%}"),
    ]


def _rm(metrics: Mapping[str, Any]) -> list[str]:
    return [
        _interval(metrics, "accuracy", "held-out accuracy"),
        _interval(metrics, "length_accuracy", '"the longer one wins"'),
        _interval(metrics, "gold_accuracy", "accuracy on gold-ordered pairs"),
    ]


def _ppo(metrics: Mapping[str, Any]) -> list[str]:
    skipped = metrics.get("skipped_minibatches")
    return [
        _figure(metrics, "score", "score {:.3g}"),
        _figure(metrics, "kl", "KL {:.3g} nats a response"),
        _figure(metrics, "response_length", "{:.3g} tokens a response"),
        f"{skipped:g} minibatches skipped" if skipped else "",
    ]


def _eval(metrics: Mapping[str, Any]) -> list[str]:
    policies = metrics.get("policies", {})
    sft, ppo = policies.get("sft", {}), policies.get("ppo", {})
    pairs = {"before": sft, "after": ppo}
    return [
        _interval(metrics, "gold_win_rate", "PPO's win rate over SFT by gold reward"),
        _interval(metrics, "proxy_win_rate", "PPO's win rate over SFT by its own score"),
        _versus(pairs, "gold", "gold reward"),
        _versus(pairs, "proxy", "score"),
        _figure(ppo, "kl", "KL {:.3g} nats a response"),
    ]


_LINES: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "sft": _sft,
    "rm": _rm,
    "ppo": _ppo,
    "eval": _eval,
}


def _number(metrics: Mapping[str, Any], name: str) -> float | None:
    value = metrics.get(name)
    return value if isinstance(value, int | float) else None


def _figure(metrics: Mapping[str, Any], name: str, form: str) -> str:
    value = _number(metrics, name)
    return "" if value is None else form.format(value)


def _change(metrics: Mapping[str, Any], before: str, after: str, label: str, form: str) -> str:
    first, last = _number(metrics, before), _number(metrics, after)
    if last is None:
        return ""
    shown = form.format(last)
    return f"{label} {shown}" if first is None else f"{label} {form.format(first)} -> {shown}"


def _versus(pairs: Mapping[str, Mapping[str, Any]], name: str, label: str) -> str:
    both = {when: metrics.get(name) for when, metrics in pairs.items()}
    return _change(both, "before", "after", label, "{:.3g}")


def _interval(metrics: Mapping[str, Any], name: str, label: str) -> str:
    value = _number(metrics, name)
    low, high = _number(metrics, f"{name}_low"), _number(metrics, f"{name}_high")
    if value is None:
        return ""
    shown = f"{label} {value:.1%}"
    return shown if low is None or high is None else f"{shown} ({low:.1%} to {high:.1%})"
