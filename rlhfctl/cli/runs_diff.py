"""Output of `runs diff`: settings and metrics that are not the same in two runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from rlhfctl.console import format_metric, safe
from rlhfctl.pipeline.conclusions import flat_numbers
from rlhfctl.run.listing import run_named
from rlhfctl.stage_table import ALL_STAGES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rlhfctl.console import Terminal
    from rlhfctl.report.sources import RunFacts

_MAIN = (
    *("sft.eval_loss", "sft.token_accuracy", "rm.accuracy", "rm.length_accuracy"),
    *("rm.gold_accuracy", "ppo.episodes", "ppo.result.true_reward", "ppo.result.kl"),
    *("eval.win_rate", "eval.gold_win_rate", "eval.proxy_win_rate", "eval.policies.ppo.gold"),
    *("eval.policies.ppo.proxy", "eval.policies.ppo.kl", "eval.policies.ppo.length"),
)
"""Metrics that are compared by default, as STAGE.NAME."""


def show_differences(
    names: tuple[str, str], runs_dir: Path, terminal: Terminal, *, every_metric: bool
) -> None:
    """Print the settings that differ, and the metrics of both runs with their change.

    Raises:
        UsageError: A run does not exist.
        CheckpointError: A file of a run is damaged.
    """
    from rlhfctl.report.comparison import recipe_differences
    from rlhfctl.report.sources import read_run

    runs = [read_run(run_named(name, runs_dir).root) for name in names]
    settings = dict(recipe_differences(runs))
    first, second = map(_numbers, runs)
    shown = [name for name in {**first, **second} if every_metric or name in _MAIN]
    if terminal.as_json:
        metrics = {name: [first.get(name), second.get(name)] for name in shown}
        value = {name: list(pair) for name, pair in settings.items()}
        runs_named = [run.name for run in runs]
        terminal.write_json({"ok": True, "runs": runs_named, "settings": value, "metrics": metrics})
        return
    labels = [run.name for run in runs]
    if settings:
        table = _table("setting", *labels)
        for key, pair in settings.items():
            table.add_row(*map(safe, (key, *pair)))
        terminal.result(table)
    else:
        terminal.result("the settings are the same")
    if shown:
        table = _table("metric", *labels, "change")
        for name in shown:
            table.add_row(safe(name), *map(safe, _metric_cells(name, first, second)))
        terminal.result("", table)


def _metric_cells(
    name: str, first: Mapping[str, float], second: Mapping[str, float]
) -> tuple[str, str, str]:
    one, other = first.get(name), second.get(name)
    if one is None or other is None:
        return _cell(name, one), _cell(name, other), ""
    change = other - one
    sign = "+" if change > 0 else ""
    return _cell(name, one), _cell(name, other), f"{sign}{format_metric(name, change)}"


def _cell(name: str, value: float | None) -> str:
    return "-" if value is None else format_metric(name, value)


def _numbers(run: RunFacts) -> dict[str, float]:
    return {
        f"{stage.name}.{name}": value
        for stage in ALL_STAGES
        if stage.name in run.records
        for name, value in flat_numbers(run.records[stage.name].metrics)
    }


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(safe(title), overflow="fold")
    return table
