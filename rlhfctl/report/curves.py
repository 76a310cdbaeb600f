"""What a plot shows: its lines, their points and intervals; and which curves a stage has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.report.numbers import finite

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MOST_POINTS = 400
MOST_EXTRA_CURVES = 24
_NO_CURVE = {"step", "time", "epoch"}


@dataclass(frozen=True)
class Line:
    """One figure over the steps of a stage, or over whatever the plot's axis is.

    Attributes:
        label: What it is called beside another line; empty when it is alone.
        steps: [points] in the order in which they are joined.
        values: [points] finite.
        low: [points] lower ends of the intervals; empty where there are none.
        high: [points] their upper ends.
        style: `line`; `dots`, which are not joined; `dashed`, for what was fitted, not measured;
            or `guide`, which has no colour and no label.
        colour: Which of the page's colours, from 1; 0 takes the line's place in the plot.
    """

    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    style: str = "line"
    colour: int = 0


@dataclass(frozen=True)
class Plot:
    """One small plot.

    Attributes:
        title: What it shows, in a few words.
        lines: At least one.
        marks: Places on the axis with an upright line each.
        whole_steps: Whether the axis counts something.
    """

    title: str
    lines: tuple[Line, ...]
    marks: tuple[float, ...] = ()
    whole_steps: bool = True


# Of each stage: the title of a plot, and its metrics' names with their labels.
SHOWN: dict[str, tuple[tuple[str, dict[str, str]], ...]] = {
    "sft": (
        ("Loss, nats a token", {"loss": ""}),
        ("Token accuracy", {"token_accuracy": ""}),
        ("Learning rate", {"learning_rate": ""}),
    ),
    "rm": (
        ("Loss, nats a comparison", {"loss": ""}),
        ("Accuracy on the batch", {"accuracy": ""}),
        ("Margin, chosen less rejected", {"margin": ""}),
    ),
    "ppo": (
        ("Score", {"score": ""}),
        ("Reward: score less KL penalty", {"reward": ""}),
        ("KL, nats a response", {"kl": "k1", "kl_k3": "k3"}),
        ("Entropy, nats a token", {"entropy": ""}),
        ("Response length, tokens", {"response_length": ""}),
        ("Share ended by EOS", {"eos_share": ""}),
        (
            "Share clipped",
            {"policy_clip_fraction": "policy", "value_clip_fraction": "value"},
        ),
        ("Value loss", {"value_loss": ""}),
        ("Explained variance of the critic", {"explained_variance": ""}),
    ),
}


def plots(stage: str, steps: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Return the stage's plots, in their order, of those metrics that were logged."""
    found = (
        Plot(
            title,
            tuple(line for name, label in names.items() if (line := curve(name, label, steps))),
        )
        for title, names in SHOWN.get(stage, ())
    )
    return [plot for plot in found if plot.lines]


def extra_plots(stage: str, steps: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Return a plot of every other logged figure, under its own name."""
    shown = {name for _, names in SHOWN.get(stage, ()) for name in names}
    names = dict.fromkeys(name for step in steps for name in step)
    others = [name for name in names if name not in shown | _NO_CURVE]
    found = (Plot(name, (line,)) for name in others if (line := curve(name, "", steps)))
    return list(found)[:MOST_EXTRA_CURVES]


def curve(
    name: str, label: str, steps: Iterable[Mapping[str, Any]], colour: int = 0
) -> Line | None:
    """Return one figure's points, thinned; None when it was never logged as a finite number."""
    points = [
        (at, value)
        for step in steps
        if (at := finite(step.get("step"))) is not None
        and (value := finite(step.get(name))) is not None
    ]
    if not points:
        return None
    thinned = _thin(points)
    ats, values = zip(*thinned, strict=True)
    return Line(label, ats, values, colour=colour)


def interval_line(
    label: str,
    rows: Iterable[Mapping[str, Any]],
    axis: str,
    name: str,
    style: str = "line",
    colour: int = 0,
    less: float = 0.0,
) -> Line | None:
    """Return a figure with its intervals along another figure, in the order of that.

    Args:
        label: As in `Line`.
        rows: Each with the metrics `axis`, `name`, `name_low` and `name_high`.
        axis: The figure to go along.
        name: The figure to show.
        style: As in `Line`.
        colour: As in `Line`.
        less: Taken from every value and end.

    Returns:
        None where no row has both metrics; a line without intervals where one of them lacks its own.
    """
    found = (
        (at, value, finite(row.get(f"{name}_low")), finite(row.get(f"{name}_high")))
        for row in rows
        if (at := finite(row.get(axis))) is not None
        and (value := finite(row.get(name))) is not None
    )
    points = sorted(found, key=lambda point: point[0])
    if not points:
        return None
    lows = [low - less for _, _, low, _ in points if low is not None]
    highs = [high - less for _, _, _, high in points if high is not None]
    complete = len(lows) == len(highs) == len(points)
    return Line(
        label,
        tuple(at for at, *_ in points),
        tuple(value - less for _, value, *_ in points),
        tuple(lows) if complete else (),
        tuple(highs) if complete else (),
        style,
        colour,
    )


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most `MOST_POINTS` points, each the mean of a run of neighbours."""
    width = -(-len(points) // MOST_POINTS)
    runs = (points[start : start + width] for start in range(0, len(points), width))
    return [
        (sum(at for at, _ in run) / len(run), sum(value for _, value in run) / len(run))
        for run in runs
    ]
