"""Small plots as SVG that takes its colours and its font from the page around it."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from rlhfctl.report.numbers import MINUS, scientific

if TYPE_CHECKING:
    from rlhfctl.report.curves import Plot

# Stand-ins in matplotlib's output for the page's colours, which light and dark set anew.
_COLOURS = {"#010101": "var(--line-1)", "#020202": "var(--line-2)"} | {
    "#030303": "var(--muted)",
    "#040404": "var(--rule)",
}
_LINES, _TEXT, _GRID = ("#010101", "#020202"), "#030303", "#040404"
_STEPS = (1, 2, 2.5, 5, 10)  # ticks that need few digits
_SIZE = (3.3, 1.75)  # inches; the page scales it
# What the document form brings along and the page has no use for, ids and links above all.
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


def svg(plot: Plot) -> Markup:
    """Draw a plot as an SVG element without a link, an id, a style sheet, or text of the run's.

    The plot's title and labels are left to the page.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "font.size": 9, "path.simplify": False}):
        figure = Figure(figsize=_SIZE)
        _draw(figure.add_axes((0.15, 0.14, 0.81, 0.81)), plot)
        written = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", metadata=nothing)
    return _embedded(written.getvalue())


def _draw(axes: Any, plot: Plot) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for line, colour in zip(plot.lines, _LINES, strict=False):
        if len(line.steps) == 1:
            # A line without length under round caps is a dot.
            axes.plot(line.steps * 2, line.values * 2, color=colour, lw=4, solid_capstyle="round")
        else:
            axes.plot(line.steps, line.values, color=colour, lw=1.4, solid_capstyle="round")
    axes.margins(x=0.01, y=0.08)
    axes.patch.set_visible(False)
    axes.figure.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=_TEXT)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: _compact(step)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))


def _compact(step: float) -> str:
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if abs(step) >= size:
            return f"{step / size:g}{unit}"
    return f"{step:g}"


def _tick(value: float) -> str:
    """Write a tick shortly; ticks are round, so that general format does not cut them."""
    if value and (abs(value) >= 10_000 or abs(value) < 0.001):
        return scientific(value).replace(".0e", "e")
    return f"{value:.4g}".replace("-", MINUS)


def _embedded(document: str) -> Markup:
    """Turn matplotlib's SVG document into an element that belongs to the page."""
    element = document[document.index("<svg") :]
    for pattern, replacement in _EMBEDDING:
        element = pattern.sub(replacement, element)
    for stand_in, colour in _COLOURS.items():
        element = element.replace(stand_in, colour)
    return Markup(element.strip())  # noqa: S704 - drawn from numbers only
