"""Small SVG plots that inherit colours and font from the page."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from rlhfctl.report.numbers import MINUS, number, scientific

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rlhfctl.report.curves import Line, Plot

COLOURS = 6
# Placeholder colours in matplotlib's output; the page's light and dark themes replace them.
_LINES = tuple(f"#01010{index}" for index in range(1, COLOURS + 1))
_TEXT, _GRID = "#030303", "#040404"
_COLOURS = {colour: f"var(--line-{index})" for index, colour in enumerate(_LINES, 1)} | {
    _TEXT: "var(--muted)",
    _GRID: "var(--rule)",
}
_STEPS = (1, 2, 2.5, 5, 10)  # ticks that need few digits
_SIZE = (3.3, 1.75)  # inches; the page scales it
_AXES = (0.15, 0.14, 0.81, 0.81)  # left, bottom, width and height as shares of it
# Parts of an SVG document that the page does not need, mainly ids and links.
_EMBEDDING = tuple(
    (re.compile(pattern, re.DOTALL), replacement)
    for pattern, replacement in (
        (r"<(style|metadata|defs)\b.*?</\1>", ""),
        (r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">'),
        (r' (id|clip-path)="[^"]*"', ""),
        (r" font-family: [^;]*;", ""),
        (r' transform="rotate\(-?0 [^"]*"', ""),
        (r"<g/>", ""),
        (r">\s+<", "><"),
    )
)


@dataclass(frozen=True)
class DrawnPlot:
    """A plot as the page shows it.

    Attributes:
        title: Title.
        picture: The SVG element.
        lines: Each line's colour class, label and last value; fitted lines have no value.
        points: Data for the pointer read-out: frame of the axes in the picture, their ranges, and
            each line's points.
    """

    title: str
    picture: Markup
    lines: tuple[tuple[str, str, str], ...]
    points: dict[str, Any]


def drawn(plot: Plot) -> DrawnPlot:
    """Draw a plot with its key and its read-out."""
    picture, spans = _picture(plot)
    shown = [(colour, line) for colour, line in _coloured(plot) if line.style != "guide"]
    keys = tuple(
        (
            f"line-{colour}{' dashed' if line.style == 'dashed' else ''}",
            line.label,
            number(line.values[-1]) if line.style == "line" else "",
        )
        for colour, line in shown
    )
    points = [
        {
            "label": line.label,
            "x": [_short(step) for step in line.steps],
            "y": [_short(value) for value in line.values],
        }
        for _, line in shown
    ]
    left, bottom, width, height = _AXES
    frame = [left, 1 - bottom - height, width, height]
    return DrawnPlot(plot.title, picture, keys, {"frame": frame, **spans, "lines": points})


def svg(plot: Plot) -> Markup:
    """Draw a plot as an SVG element without a link, an id, a style sheet, or text of the run's.

    The plot's title and labels are left to the page.
    """
    return _picture(plot)[0]


def _picture(plot: Plot) -> tuple[Markup, dict[str, list[float]]]:
    """Return the SVG element, and the two ends of each axis."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "font.size": 9, "path.simplify": False}):
        figure = Figure(figsize=_SIZE)
        axes = figure.add_axes(_AXES)
        _draw(axes, plot)
        written = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", metadata=nothing)
    spans = {"x": list(map(_short, axes.get_xlim())), "y": list(map(_short, axes.get_ylim()))}
    return _embedded(written.getvalue()), spans


def _coloured(plot: Plot) -> Iterator[tuple[int, Line]]:
    """Yield each line with the number of its colour; colours repeat after the last."""
    for index, line in enumerate(plot.lines):
        yield ((line.colour or index + 1) - 1) % COLOURS + 1, line


def _draw(axes: Any, plot: Plot) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for colour, line in _coloured(plot):
        _draw_line(axes, line, _LINES[colour - 1])
    for mark in plot.marks:
        axes.axvline(mark, color=_TEXT, lw=0.8, dashes=(2, 2))
    axes.margins(x=0.01, y=0.08)
    axes.patch.set_visible(False)
    axes.figure.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=_TEXT)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS, integer=plot.whole_steps))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: _compact(step)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))


def _draw_line(axes: Any, line: Line, colour: str) -> None:
    if line.style == "guide":
        axes.plot(line.steps, line.values, color=_GRID, lw=1)
        return
    dots = line.style == "dots" or len(line.steps) == 1
    if line.low:
        if dots:
            steps, ends = _apart(line.steps, line.steps), _apart(line.low, line.high)
            axes.plot(steps, ends, color=colour, lw=1, solid_capstyle="butt")
        else:
            around = ([*line.steps, *line.steps[::-1]], [*line.low, *line.high[::-1]])
            axes.fill(*around, color=colour, alpha=0.16, lw=0)
    if dots:
        # A line without length under round caps is a dot.
        twice = (_apart(line.steps, line.steps), _apart(line.values, line.values))
        axes.plot(*twice, color=colour, lw=4, solid_capstyle="round")
    elif line.style == "dashed":
        axes.plot(line.steps, line.values, color=colour, lw=1.2, dashes=(4, 2.5))
    else:
        axes.plot(line.steps, line.values, color=colour, lw=1.4, solid_capstyle="round")


def _apart(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Return one path of disconnected pairs."""
    return [value for pair in zip(first, second, strict=True) for value in (*pair, float("nan"))]


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _compact(step: float) -> str:
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if abs(step) >= size:
            return f"{step / size:g}{unit}"
    return f"{step:g}"


def _tick(value: float) -> str:
    """Format a tick; ticks are round numbers, so the general format loses no digits."""
    if value and (abs(value) >= 10_000 or abs(value) < 0.001):
        return scientific(value).replace(".0e", "e")
    return f"{value:.4g}".replace("-", MINUS)


def _embedded(document: str) -> Markup:
    """Convert matplotlib's SVG document into an element for embedding in the page."""
    element = document[document.index("<svg") :]
    for pattern, replacement in _EMBEDDING:
        element = pattern.sub(replacement, element)
    for placeholder, colour in _COLOURS.items():
        element = element.replace(placeholder, colour)
    return Markup(element.strip())  # noqa: S704 - drawn from numbers only
