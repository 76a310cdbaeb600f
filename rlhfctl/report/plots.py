"""SVG plots that inherit colours and font from the page; axis titles and labels are the page's text.

Static SVG, not a plotting library in the page: it is readable without script, sharp on paper, and
follows the page's theme, and the pointer read-out is 30 lines of script. uPlot 1.6.32 (MIT; 51 kB
of script and 2 kB of styles) would add zooming, which curves of at most 400 points do not need, and
draws on a canvas: blank without script, and a bitmap in print.
"""

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
_TEXT, _GRID, _BEST, _ALARM = "#030303", "#040404", "#050505", "#060606"
_COLOURS = {colour: f"var(--line-{index})" for index, colour in enumerate(_LINES, 1)} | {
    _TEXT: "var(--muted)",
    _GRID: "var(--rule)",
    _BEST: "var(--good)",
    _ALARM: "var(--bad)",
}
_MARKS = {
    "best": (_BEST, "best checkpoint"),
    "alarm": (_ALARM, "alarm"),
    "act": (_ALARM, "action on an alarm"),
}
_STEPS = (1, 2, 2.5, 5, 10)  # ticks that need few digits
# Width, height and font size in points; about the CSS pixels at which the page shows them.
_SIZES = {
    "small": ((238, 120, 9),),
    "large": ((403, 180, 10),),
    "first": ((560, 240, 11), (358, 140, 10.5)),  # on a desk, and on a phone
}
_MARGINS = (3.6, 0.8, 1.7, 0.8)  # left, right, bottom and top of the axes, in font sizes
_APART = 0.4  # share of the x axis between two labels on one row
_NEAR = (20.0, 7.0)  # width and height of a label beside a dot, in percent of the picture
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
class Label:
    """A text over a picture, at `left` and `top` percent of it."""

    text: str
    kind: str
    left: float
    top: float


@dataclass(frozen=True)
class Picture:
    """An SVG element, the frame of its axes (left, top, width, height as shares) and labels."""

    svg: Markup
    frame: tuple[float, float, float, float]
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class DrawnPlot:
    """A plot as the page shows it.

    Attributes:
        plot: Titles of plot and axes.
        pictures: The picture, or one for a desk and one for a phone.
        lines: Each line's colour class, label and last value; fitted lines have no value.
        points: Data for the pointer read-out: frames of the axes in the pictures, their ranges, and
            each line's points.
    """

    plot: Plot
    pictures: tuple[Picture, ...]
    lines: tuple[tuple[str, str, str], ...]
    points: dict[str, Any]


def drawn(plot: Plot) -> DrawnPlot:
    """Draw a plot with its key and its read-out."""
    drawings = [_picture(plot, *size) for size in _SIZES[plot.size]]
    shown = [(colour, line) for colour, line in _coloured(plot) if line.style != "guide"]
    keys = tuple(
        (
            f"line-{colour}{' dashed' if line.style == 'dashed' else ''}",
            line.label,
            number(line.values[-1]) if line.style in {"line", "points"} else "",
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
    pictures = tuple(picture for picture, _ in drawings)
    frames = [[_short(share) for share in picture.frame] for picture in pictures]
    return DrawnPlot(plot, pictures, keys, {"frames": frames, **drawings[0][1], "lines": points})


def svg(plot: Plot) -> Markup:
    """Draw a plot as an SVG element without a link, an id, a style sheet, or text of the run's.

    The plot's titles and labels are left to the page.
    """
    return _picture(plot, *_SIZES[plot.size][0])[0].svg


def _picture(
    plot: Plot, width: float, height: float, font: float
) -> tuple[Picture, dict[str, list[float]]]:
    """Return the picture, and the two ends of each axis."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    left, right, bottom, top = (font * margin for margin in _MARGINS)
    row = 1.25 * font  # labels of marks stand above the axes
    rows = _mark_rows(plot)
    top += row * (max(rows.values()) + 1) if rows else 0.0
    frame = (
        left / width,
        top / height,
        (width - left - right) / width,
        (height - top - bottom) / height,
    )
    with mpl.rc_context({"svg.fonttype": "none", "font.size": font, "path.simplify": False}):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((frame[0], bottom / height, frame[2], frame[3]))
        _draw(axes, plot)
        written = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", metadata=nothing)
    x, y = axes.get_xlim(), axes.get_ylim()
    labels = (*_mark_labels(plot, frame, x, 100 * row / height), *_dot_labels(plot, frame, x, y))
    picture = Picture(_embedded(written.getvalue()), frame, labels)
    return picture, {"x": list(map(_short, x)), "y": list(map(_short, y))}


def _mark_rows(plot: Plot) -> dict[str, int]:
    """Return the row of each kind's label: the second where two would overlap."""
    steps = [step for line in plot.lines for step in line.steps]
    width = max(steps) - min(steps) or 1.0
    rows: dict[str, int] = {}
    for mark in plot.marks:
        near = any(abs(mark.position - _first(plot, kind)) < _APART * width for kind in rows)
        rows.setdefault(mark.kind, int(near))
    return rows


def _first(plot: Plot, kind: str) -> float:
    return next(mark.position for mark in plot.marks if mark.kind == kind)


def _mark_labels(
    plot: Plot, frame: Sequence[float], x: tuple[float, float], row: float
) -> Iterator[Label]:
    """Yield a label at the first mark of each kind; `row` is a row's height in percent."""
    for kind, index in _mark_rows(plot).items():
        left = 100 * (frame[0] + frame[2] * (_first(plot, kind) - x[0]) / (x[1] - x[0]))
        at_end = " before" if left > 75 else ""
        yield Label(_MARKS[kind][1], f"mark {kind}{at_end}", left, row * index)


def _dot_labels(
    plot: Plot, frame: Sequence[float], x: tuple[float, float], y: tuple[float, float]
) -> list[Label]:
    """Return the names beside the dots, from the top, moved down where they would overlap."""
    positions = sorted(
        (
            100 * (frame[1] + frame[3] * (1 - (value - y[0]) / (y[1] - y[0]))),
            100 * (frame[0] + frame[2] * (step - x[0]) / (x[1] - x[0])),
            name,
        )
        for line in plot.lines
        for step, value, name in zip(line.steps, line.values, line.names, strict=False)
    )
    placed: list[Label] = []
    for above, left, name in positions:
        near = [other.top for other in placed if abs(other.left - left) < _NEAR[0]]
        top = max([above, *(other + _NEAR[1] for other in near)])
        placed.append(Label(name, "dot before" if left > 75 else "dot", left, top))
    return placed


def _coloured(plot: Plot) -> Iterator[tuple[int, Line]]:
    """Yield each line with the number of its colour; colours repeat after the last."""
    for index, line in enumerate(plot.lines):
        yield ((line.colour or index + 1) - 1) % COLOURS + 1, line


def _draw(axes: Any, plot: Plot) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for colour, line in _coloured(plot):
        _draw_line(axes, line, _LINES[colour - 1])
    for mark in plot.marks:
        axes.axvline(mark.position, color=_MARKS[mark.kind][0], lw=1, dashes=(3, 2))
    axes.margins(x=0.01 if plot.whole_steps else 0.04, y=0.08)
    axes.patch.set_visible(False)
    axes.figure.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=_TEXT)
    axes.xaxis.set_major_locator(
        MaxNLocator(4 if plot.size == "small" else 6, steps=_STEPS, integer=plot.whole_steps)
    )
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
    # A line without length under round caps is a dot.
    twice = (_apart(line.steps, line.steps), _apart(line.values, line.values))
    if dots:
        axes.plot(*twice, color=colour, lw=4, solid_capstyle="round")
    elif line.style == "dashed":
        axes.plot(line.steps, line.values, color=colour, lw=1.2, dashes=(4, 2.5))
    else:
        axes.plot(line.steps, line.values, color=colour, lw=1.4, solid_capstyle="round")
    if line.style == "points" and not dots:
        axes.plot(*twice, color=colour, lw=3.6, solid_capstyle="round")


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
