"""Sweep page: points, frontier of reward against KL, recommended setting."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlhfctl.report import markdown
from rlhfctl.report.blocks import (
    Block,
    Cell,
    Column,
    Note,
    Section,
    estimate_cell,
    plots,
    table,
)
from rlhfctl.report.curves import Line, Plot, at_distance, interval_line
from rlhfctl.report.html import write
from rlhfctl.report.numbers import finite, number, share, value_of
from rlhfctl.report.sections.best_of_n import curve_points
from rlhfctl.report.values import finite_only
from rlhfctl.results.io import read_result, to_json
from rlhfctl.results.sweep import SettingMetrics, SweepPoint, SweepResult, SweepSetting
from rlhfctl.run.directory import SWEEP_FILE
from rlhfctl.run.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rlhfctl.results.estimate import Estimate
    from rlhfctl.results.evaluation import BestOfN, BestOfNRow
    from rlhfctl.results.json_value import JsonValue

    Metric = Callable[[SettingMetrics], Estimate | None]

_REWARDS: tuple[tuple[str, Metric, Callable[[BestOfN], list[BestOfNRow] | None]], ...] = (
    ("Gold", lambda metrics: metrics.gold, lambda curves: curves.gold),
    (
        "Held-out reward model",
        lambda metrics: metrics.true_reward,
        lambda curves: curves.true_reward,
    ),
    ("Proxy", lambda metrics: metrics.proxy, lambda curves: curves.proxy),
)
_METRICS: tuple[tuple[str, Metric, Callable[[Any], str]], ...] = (
    ("KL, nats", lambda metrics: metrics.kl, number),
    ("Gold", lambda metrics: metrics.gold, number),
    ("Held-out RM", lambda metrics: metrics.true_reward, number),
    ("Proxy", lambda metrics: metrics.proxy, number),
    ("Gold win rate", lambda metrics: metrics.gold_win_rate, share),
    ("Proxy win rate", lambda metrics: metrics.proxy_win_rate, share),
    ("Length", lambda metrics: metrics.length, number),
    ("Repeated", lambda metrics: metrics.repetition, share),
)
_SEED = "seed"


@dataclass(frozen=True)
class Sweep:
    """A sweep's name and results."""

    name: str
    result: SweepResult

    def is_recommended(self, entry: SweepPoint | SweepSetting) -> bool:
        """Return whether a point or a group has the recommended settings, whatever its seed."""
        if self.result.recommended is None:
            return False
        chosen = self.result.recommended.settings
        return all(entry.settings.get(key) == value for key, value in chosen.items())


def read(root: Path) -> Sweep:
    """Read the sweep of a folder.

    Raises:
        CheckpointError: If its file is damaged, or written by another version of rlhfctl.
    """
    return Sweep(root.resolve().name, read_result(SweepResult, root / SWEEP_FILE))


def html(sweep: Sweep) -> str:
    """Return the sweep as one self-contained page."""
    summary = [("recipe", sweep.result.recipe)]
    head = {"name": sweep.name, "kind": "RLHF sweep", "summary": summary}
    parts = sections(sweep)
    contents = [(part.anchor, part.title) for part in parts]
    return write("sections.html.j2", {**head, "sections": parts, "contents": contents})


def markdown_text(sweep: Sweep) -> str:
    """Return the sweep as Markdown."""
    head = [f"## {markdown.plain(sweep.name)}: sweep", ""]
    return "\n".join([*head, *markdown.written(sections(sweep))])


def value(sweep: Sweep) -> dict[str, Any]:
    """Return the sweep as a JSON object."""
    cleaned: dict[str, Any] = finite_only({"sweep": sweep.name, **to_json(sweep.result)})
    return cleaned


def sections(sweep: Sweep) -> list[Section]:
    """Return the sections that are not empty."""
    parts = (
        ("Recommended", _recommended(sweep)),
        ("Frontier", _frontier(sweep)),
        ("Points", _points(sweep)),
    )
    return [Section(title, blocks) for title, blocks in parts if blocks]


def _recommended(sweep: Sweep) -> tuple[Block, ...]:
    recommended = sweep.result.recommended
    return (Note(recommended.why),) if recommended else ()


def _setting(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _frontier(sweep: Sweep) -> tuple[Block, ...]:
    """Return plots of each reward against √KL to SFT, with best-of-n."""
    result = sweep.result
    shown = result.groups or result.points
    keys = [key for key in result.keys if not (result.groups and key == _SEED)]
    ours = [entry for entry in shown if sweep.is_recommended(entry)]
    others = [entry for entry in shown if not sweep.is_recommended(entry)]
    pictures = []
    for title, metric, best_of in _REWARDS:
        best = curve_points((best_of(result.best_of_n) if result.best_of_n else None) or [])
        lines = (
            interval_line("best of n", best, colour=3),
            _dots("PPO", others, keys, metric, 1),
            _dots("PPO, recommended", ours, keys, metric, 2),
        )
        present = tuple(line for line in lines if line is not None)
        pictures.append(
            Plot(
                f"{title} against √KL",
                present,
                "√KL to SFT, √nats",
                "mean score, 95 % CI",
                whole_steps=False,
            )
        )
    drawn = plots(pictures, large=True)
    dot = (
        "Each dot is a setting: its mean over seeds, with the 95 % CI between seeds"
        if result.groups
        else "Each dot is a run: its mean over prompts, with the 95 % CI"
    )
    named = ", ".join(keys)
    named = f", labelled with {named}" if named else ""
    note = Note(f"{dot}{named}. The line is best-of-n sampling from SFT by the proxy.")
    return (*drawn, note) if drawn else ()


def _dots(
    label: str,
    entries: Sequence[SweepPoint | SweepSetting],
    keys: Sequence[str],
    metric: Metric,
    colour: int,
) -> Line | None:
    """Return a dot per setting with its values beside it, in the order of their distance."""
    placed = [
        (
            at_distance(kl.value),
            estimate,
            ", ".join(_setting(entry.settings.get(key, "")) for key in keys),
        )
        for entry in entries
        if (kl := _metrics(entry).kl) is not None
        and finite(kl.value) is not None
        and (estimate := metric(_metrics(entry))) is not None
        and value_of(estimate) is not None
    ]
    placed.sort(key=lambda point: point[0])
    line = interval_line(label, [point[:2] for point in placed], "dots", colour)
    return replace(line, names=tuple(visible(point[2]) for point in placed)) if line else None


def _metrics(entry: SweepPoint | SweepSetting) -> SettingMetrics:
    """Return the metrics of PPO's policy; those of an unfinished run are missing."""
    if isinstance(entry, SweepSetting):
        return entry.metrics
    return entry.metrics.ppo if entry.metrics else SettingMetrics()


def _points(sweep: Sweep) -> tuple[Block, ...]:
    """Return a table of settings averaged over seeds, if there are several, and a table of runs."""
    keys = sweep.result.keys
    settings = [key for key in keys if key != _SEED]
    return (
        *table(
            "One row per setting: means over seeds, with 95 % CIs between seeds.",
            _columns(settings),
            [_row(group, settings, sweep) for group in sweep.result.groups or []],
        ),
        *table(
            "One row per run, with 95 % CIs over prompts.",
            _columns(keys),
            [_row(point, keys, sweep) for point in sweep.result.points],
        ),
    )


def _columns(keys: Sequence[str]) -> list[Column]:
    return [
        *(Column(key.rpartition(".")[2]) for key in keys),
        *(Column(label, "number") for label, _, _ in _METRICS),
        Column("Alarms"),
        Column("Status"),
    ]


def _row(entry: SweepPoint | SweepSetting, keys: Sequence[str], sweep: Sweep) -> tuple[Cell, ...]:
    metrics, status = _metrics(entry), ""
    raised: list[str] = []
    if isinstance(entry, SweepPoint):
        status = entry.status.replace("_", " ")
        alarms = (entry.metrics.alarms if entry.metrics else None) or []
        raised = list(dict.fromkeys(alarm.name.replace("_", " ") for alarm in alarms))
    notes = (status, "recommended" if sweep.is_recommended(entry) else "")
    return (
        *(_setting(entry.settings.get(key, "")) for key in keys),
        *(estimate_cell(metric(metrics), write_metric) for _, metric, write_metric in _METRICS),
        ", ".join(raised),
        ", ".join(note for note in notes if note),
    )
