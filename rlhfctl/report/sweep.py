"""A sweep on one page: its points, the frontier of reward against KL, the recommended setting."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.report import markdown
from rlhfctl.report.blocks import Block, Cell, Column, Note, Section, estimate, plots, table
from rlhfctl.report.curves import Plot, interval_line
from rlhfctl.report.html import write
from rlhfctl.report.numbers import finite, number, share
from rlhfctl.report.sections.best_of_n import curve_points
from rlhfctl.report.sources import read_object
from rlhfctl.report.values import finite_only

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

FILE = "sweep.json"
_REWARDS = (("Gold", "gold"), ("Held-out reward model", "stand_in"), ("Proxy", "proxy"))
_FIGURES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("KL, nats", "kl", number),
    ("Gold", "gold", number),
    ("Stand-in", "stand_in", number),
    ("Proxy", "proxy", number),
    ("Gold win rate", "gold_win_rate", share),
    ("Proxy win rate", "proxy_win_rate", share),
    ("Length", "length", number),
    ("Repeated", "repetition", share),
)


@dataclass(frozen=True)
class Sweep:
    """What a sweep's file says."""

    name: str
    found: Mapping[str, Any]

    @property
    def points(self) -> list[dict[str, Any]]:
        """The settings tried, each with what became of it."""
        points = self.found.get("points")
        listed = points if isinstance(points, list) else []
        return [point for point in listed if isinstance(point, dict)]

    @property
    def recommended(self) -> tuple[int, str] | None:
        """Which point is recommended, and why; None if none is."""
        found = self.found.get("recommended")
        point = found.get("point") if isinstance(found, dict) else None
        if not isinstance(found, dict) or not isinstance(point, int):
            return None
        return (point, str(found.get("why", ""))) if 0 <= point < len(self.points) else None


def read(root: Path) -> Sweep:
    """Read the sweep of a folder.

    Raises:
        CheckpointError: If its file is damaged.
    """
    return Sweep(root.resolve().name, read_object(root / FILE))


def html(sweep: Sweep) -> str:
    """Return the sweep as one self-contained page."""
    recipe = sweep.found.get("recipe")
    summary = [("recipe", str(recipe))] if isinstance(recipe, str) else []
    head = {"name": sweep.name, "kind": "RLHF sweep", "summary": summary}
    return write("sections.html.j2", {**head, "sections": sections(sweep)})


def markdown_text(sweep: Sweep) -> str:
    """Return the sweep as Markdown."""
    head = [f"## {markdown.plain(sweep.name)}: sweep", ""]
    return "\n".join([*head, *markdown.written(sections(sweep))])


def value(sweep: Sweep) -> dict[str, Any]:
    """Return the sweep as a JSON object."""
    cleaned: dict[str, Any] = finite_only({"sweep": sweep.name, **sweep.found})
    return cleaned


def sections(sweep: Sweep) -> list[Section]:
    """Return the parts of the page that there is something for."""
    found = (
        ("Recommended", _recommended(sweep)),
        ("Frontier", _frontier(sweep)),
        ("Points", _points(sweep)),
    )
    return [Section(title, blocks) for title, blocks in found if blocks]


def _recommended(sweep: Sweep) -> tuple[Block, ...]:
    if sweep.recommended is None:
        return ()
    at, why = sweep.recommended
    return (Note(f"{_settings(sweep.points[at])}. {why}"),)


def _settings(point: Mapping[str, Any]) -> str:
    settings = point.get("settings")
    pairs = settings.items() if isinstance(settings, dict) else ()
    return ", ".join(f"{key} {_setting(value)}" for key, value in pairs) or "no settings"


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _frontier(sweep: Sweep) -> tuple[Block, ...]:
    """Return each reward against the distance from SFT, best-of-n beside it."""
    chosen = sweep.recommended
    rows = [(at, _placed(point)) for at, point in enumerate(sweep.points)]
    others = [row for at, row in rows if chosen is None or at != chosen[0]]
    ours = [row for at, row in rows if chosen is not None and at == chosen[0]]
    pictures = []
    for title, name in _REWARDS:
        best = curve_points(sweep.found.get("best_of_n"), name)
        lines = (
            interval_line("best of n", best, "sqrt_kl", "value", colour=3),
            interval_line("PPO", others, "sqrt_kl", name, "dots", 1),
            interval_line("PPO, recommended", ours, "sqrt_kl", name, "dots", 2),
        )
        kept = tuple(line for line in lines if line is not None)
        pictures.append(Plot(f"{title} against √KL", kept, whole_steps=False))
    shown = plots(pictures, large=True)
    note = Note(
        "Each dot is a finished run, with the 95 % interval of its mean; the line is the best of n "
        "responses of SFT by the proxy, with no training."
    )
    return (*shown, note) if shown else ()


def _placed(point: Mapping[str, Any]) -> dict[str, Any]:
    figures = _figures(point)
    kl = finite(figures.get("kl"))
    return {**figures, "sqrt_kl": None if kl is None else math.sqrt(max(kl, 0.0))}


def _figures(point: Mapping[str, Any]) -> dict[str, Any]:
    figures = point.get("figures")
    return figures if isinstance(figures, dict) else {}


def _points(sweep: Sweep) -> tuple[Block, ...]:
    keys = [str(key) for key in sweep.found.get("keys") or []]
    columns = [
        *(Column(key.rpartition(".")[2]) for key in keys),
        *(Column(label, "number") for label, _, _ in _FIGURES),
        Column("Status"),
    ]
    chosen = sweep.recommended
    rows = [
        _row(point, keys, recommended=chosen is not None and chosen[0] == at)
        for at, point in enumerate(sweep.points)
    ]
    return table(
        "A row a setting, with 95 % intervals; the settings are the last parts of "
        f"{', '.join(keys)}.",
        columns,
        rows,
    )


def _row(point: Mapping[str, Any], keys: Sequence[str], *, recommended: bool) -> tuple[Cell, ...]:
    settings = point.get("settings")
    known = settings if isinstance(settings, dict) else {}
    figures = _figures(point)
    cells: list[Cell] = [
        estimate(figures, name, write_figure) for _, name, write_figure in _FIGURES
    ]
    status = str(point.get("status", ""))
    return (
        *(_setting(known.get(key, "")) for key in keys),
        *cells,
        f"{status}, recommended" if recommended else status,
    )
