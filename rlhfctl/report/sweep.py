"""Sweep page: points, frontier of reward against KL, recommended setting."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.report import markdown
from rlhfctl.report.blocks import (
    Block,
    Cell,
    Column,
    Note,
    Section,
    estimate,
    objects,
    plots,
    table,
)
from rlhfctl.report.curves import Plot, interval_line
from rlhfctl.report.html import write
from rlhfctl.report.numbers import finite, number, share
from rlhfctl.report.sections.best_of_n import curve_points
from rlhfctl.report.sources import read_object
from rlhfctl.report.values import finite_only
from rlhfctl.run.directory import SWEEP_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_REWARDS = (
    ("Gold", "gold"),
    ("Held-out reward model", "true_reward"),
    ("Proxy", "proxy"),
)
_METRICS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("KL, nats", "kl", number),
    ("Gold", "gold", number),
    ("Held-out RM", "true_reward", number),
    ("Proxy", "proxy", number),
    ("Gold win rate", "gold_win_rate", share),
    ("Proxy win rate", "proxy_win_rate", share),
    ("Length", "length", number),
    ("Repeated", "repetition", share),
)
_SEED = "seed"


@dataclass(frozen=True)
class Sweep:
    """Contents of a sweep's file."""

    name: str
    content: Mapping[str, Any]

    @property
    def keys(self) -> list[str]:
        """The recipe keys that differ between its points."""
        keys = self.content.get("keys")
        return list(map(str, keys)) if isinstance(keys, list) else []

    @property
    def points(self) -> list[dict[str, Any]]:
        """The settings tried, each with its outcome."""
        return self._listed("points")

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Settings averaged over seeds; empty without several seeds."""
        return self._listed("groups")

    @property
    def recommended(self) -> tuple[Mapping[str, Any], str] | None:
        """The recommended settings and the reason; None without a recommendation."""
        entry = self.content.get("recommended")
        if not isinstance(entry, dict):
            return None
        settings, point_index = entry.get("settings"), entry.get("point")
        if (
            settings is None
            and isinstance(point_index, int)
            and 0 <= point_index < len(self.points)
        ):
            settings = self.points[point_index].get("settings")
        return (settings, str(entry.get("why", ""))) if isinstance(settings, dict) else None

    def is_recommended(self, point: Mapping[str, Any]) -> bool:
        """Return whether a point or a group has the recommended settings, whatever its seed."""
        settings, chosen = point.get("settings"), self.recommended
        if chosen is None or not isinstance(settings, dict):
            return False
        return all(settings.get(key) == value for key, value in chosen[0].items())

    def _listed(self, name: str) -> list[dict[str, Any]]:
        entries = self.content.get(name)
        return (
            [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
        )


def read(root: Path) -> Sweep:
    """Read the sweep of a folder.

    Raises:
        CheckpointError: If its file is damaged.
    """
    return Sweep(root.resolve().name, read_object(root / SWEEP_FILE))


def html(sweep: Sweep) -> str:
    """Return the sweep as one self-contained page."""
    recipe = sweep.content.get("recipe")
    summary = [("recipe", str(recipe))] if isinstance(recipe, str) else []
    head = {"name": sweep.name, "kind": "RLHF sweep", "summary": summary}
    return write("sections.html.j2", {**head, "sections": sections(sweep)})


def markdown_text(sweep: Sweep) -> str:
    """Return the sweep as Markdown."""
    head = [f"## {markdown.plain(sweep.name)}: sweep", ""]
    return "\n".join([*head, *markdown.written(sections(sweep))])


def value(sweep: Sweep) -> dict[str, Any]:
    """Return the sweep as a JSON object."""
    cleaned: dict[str, Any] = finite_only({"sweep": sweep.name, **sweep.content})
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
    if sweep.recommended is None:
        return ()
    _, why = sweep.recommended
    return (Note(why),)


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _frontier(sweep: Sweep) -> tuple[Block, ...]:
    """Return plots of each reward against √KL to SFT, with best-of-n."""
    shown = sweep.groups or sweep.points
    ours = [_placed(point) for point in shown if sweep.is_recommended(point)]
    others = [_placed(point) for point in shown if not sweep.is_recommended(point)]
    pictures = []
    for title, name in _REWARDS:
        best = curve_points(sweep.content.get("best_of_n"), name)
        lines = (
            interval_line("best of n", best, "sqrt_kl", "value", colour=3),
            interval_line("PPO", others, "sqrt_kl", name, "dots", 1),
            interval_line("PPO, recommended", ours, "sqrt_kl", name, "dots", 2),
        )
        present = tuple(line for line in lines if line is not None)
        pictures.append(Plot(f"{title} against √KL", present, whole_steps=False))
    drawn = plots(pictures, large=True)
    dot = (
        "Each dot is a setting: its mean over seeds, with the 95 % CI between seeds"
        if sweep.groups
        else "Each dot is a run: its mean over prompts, with the 95 % CI"
    )
    note = Note(f"{dot}. The line is best-of-n sampling from SFT by the proxy.")
    return (*drawn, note) if drawn else ()


def _placed(point: Mapping[str, Any]) -> dict[str, Any]:
    metrics = _metrics(point)
    kl = finite(metrics.get("kl"))
    return {**metrics, "sqrt_kl": None if kl is None else math.sqrt(max(kl, 0.0))}


def _metrics(point: Mapping[str, Any]) -> dict[str, Any]:
    return objects({"": point.get("metrics")}).get("", {})


def _points(sweep: Sweep) -> tuple[Block, ...]:
    """Return a table of settings averaged over seeds, if there are several, and a table of runs."""
    settings = [key for key in sweep.keys if key != _SEED]
    per_setting = "One row per setting: means over seeds, with 95 % CIs between seeds."
    per_run = "One row per run, with 95 % CIs over prompts."
    return (
        *table(
            per_setting, _columns(settings), [_row(one, settings, sweep) for one in sweep.groups]
        ),
        *table(
            per_run, _columns(sweep.keys), [_row(one, sweep.keys, sweep) for one in sweep.points]
        ),
    )


def _columns(keys: Sequence[str]) -> list[Column]:
    return [
        *(Column(key.rpartition(".")[2]) for key in keys),
        *(Column(label, "number") for label, _, _ in _METRICS),
        Column("Alarms"),
        Column("Status"),
    ]


def _row(point: Mapping[str, Any], keys: Sequence[str], sweep: Sweep) -> tuple[Cell, ...]:
    settings = objects({"": point.get("settings")}).get("", {})
    metrics = _metrics(point)
    alarms = [alarm for alarm in metrics.get("alarms") or [] if isinstance(alarm, dict)]
    raised = dict.fromkeys(str(alarm.get("name", "")).replace("_", " ") for alarm in alarms)
    status = str(point.get("status", "")).replace("_", " ")
    notes = (status, "recommended" if sweep.is_recommended(point) else "")
    return (
        *(_setting(settings.get(key, "")) for key in keys),
        *(estimate(metrics, name, write_figure) for _, name, write_figure in _METRICS),
        ", ".join(raised),
        ", ".join(note for note in notes if note),
    )
