"""Plots of a report: lines, points and intervals, and the main plots of each stage."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlhfctl.report.numbers import finite
from rlhfctl.results.metric import Source
from rlhfctl.results.names import METRICS
from rlhfctl.stage_table import DPO, PPO, REWARD_MODEL, SFT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rlhfctl.report.sources import LogStep
    from rlhfctl.results.estimate import Estimate
    from rlhfctl.stage_table import Stage

MOST_POINTS = 400
MOST_EXTRA_CURVES = 24
_NO_CURVE = {"step", "time", "epoch"}
_LOGS = {
    SFT.name: Source.SFT_LOG,
    REWARD_MODEL.name: Source.RM_LOG,
    PPO.name: Source.PPO_LOG,
    DPO.name: Source.DPO_LOG,
}


@dataclass(frozen=True)
class Line:
    """One metric over the plot's x axis, by default the steps of a stage.

    Attributes:
        label: Label in the key; empty for a single line.
        steps: [points] in the order in which they are joined.
        values: [points] finite.
        low: [points] lower ends of the intervals; empty where there are none.
        high: [points] their upper ends.
        style: `line`; `points`, a line with a dot at each point; `dots`, not joined; `dashed`, for
            fitted curves; or `guide`, which has no colour and no label.
        colour: Index into the page's colours, from 1; 0 uses the line's position in the plot.
        names: [points] Texts beside the dots; empty for none.
    """

    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    style: str = "line"
    colour: int = 0
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mark:
    """A vertical line on the x axis: the `best` checkpoint, an `alarm`, or an `act` on alarms."""

    position: float
    kind: str


@dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
        title: Title, in a few words.
        lines: At least one.
        x: Title of the x axis, with its unit.
        y: Title of the y axis, with its unit.
        marks: Vertical lines.
        whole_steps: Whether the x axis has integer ticks only.
        size: `small`, `large`, or `first` for the chart of the first screen.
    """

    title: str
    lines: tuple[Line, ...]
    x: str = ""
    y: str = ""
    marks: tuple[Mark, ...] = ()
    whole_steps: bool = True
    size: str = "small"


@dataclass(frozen=True)
class CurveSpec:
    """A logged metric and its label in the plot; empty when it is the only curve."""

    metric: str
    label: str = ""


@dataclass(frozen=True)
class PlotSpec:
    """The title of a plot, the title of its y axis and the metrics in it."""

    title: str
    y: str
    curves: tuple[CurveSpec, ...]


@dataclass(frozen=True)
class StagePlots:
    """The main plots of a stage, in order."""

    stage: Stage
    plots: tuple[PlotSpec, ...]


def _single(title: str, metric: str, y: str) -> PlotSpec:
    return PlotSpec(title, y, (CurveSpec(metric),))


def _with_held_out(title: str, metric: str, held_out: str, y: str) -> PlotSpec:
    return PlotSpec(title, y, (CurveSpec(metric, "training"), CurveSpec(held_out, "held-out")))


MAIN_PLOTS = (
    StagePlots(
        SFT,
        (
            _with_held_out("Loss", "loss", "eval_loss", "nats per token"),
            _with_held_out(
                "Token accuracy", "token_accuracy", "eval_token_accuracy", "fraction of tokens"
            ),
            _single("Learning rate", "learning_rate", "learning rate"),
        ),
    ),
    StagePlots(
        REWARD_MODEL,
        (
            _with_held_out("Loss", "loss", "eval_loss", "nats per comparison"),
            _with_held_out(
                "Training batch accuracy", "accuracy", "eval_accuracy", "fraction of comparisons"
            ),
            _single("Margin: chosen − rejected", "margin", "raw score"),
        ),
    ),
    StagePlots(
        PPO,
        (
            _single("Score", "score", "score per response"),
            _single("Reward: score − KL penalty", "reward", "reward per response"),
            PlotSpec(
                "KL to the reference",
                "nats per response",
                (CurveSpec("kl", "k1"), CurveSpec("kl_k3", "k3")),
            ),
            _single("Entropy", "entropy", "nats per token"),
            _single("Response length", "response_length", "tokens"),
            _single("Ended by EOS", "eos_share", "fraction of responses"),
            PlotSpec(
                "Clip fraction",
                "fraction of tokens",
                (
                    CurveSpec("policy_clip_fraction", "policy"),
                    CurveSpec("value_clip_fraction", "value"),
                ),
            ),
            _single("Value loss", "value_loss", "loss per token"),
            _single("Explained variance", "explained_variance", "fraction"),
        ),
    ),
    StagePlots(
        DPO,
        (
            _single("Loss", "loss", "loss per comparison"),
            _single("Training batch accuracy", "accuracy", "fraction of comparisons"),
            _single("Margin: chosen − rejected", "margin", "implicit reward"),
        ),
    ),
)


def plots(stage: Stage, steps: Sequence[LogStep], unit: str = "steps") -> list[Plot]:
    """Return the stage's main plots for which a metric was logged, over a unit of steps.

    A curve whose companions were not logged has no label.
    """
    stage_plots = []
    for spec in _specs(stage):
        lines = [line for c in spec.curves if (line := curve(c.metric, c.label, steps))]
        if len(lines) == 1:
            lines = [replace(lines[0], label="")]
        if lines:
            stage_plots.append(Plot(spec.title, tuple(lines), x=unit, y=spec.y))
    return stage_plots


def extra_plots(stage: Stage, steps: Sequence[LogStep], unit: str = "steps") -> list[Plot]:
    """Return one plot per other logged metric, titled with the metric's name."""
    main = {spec.metric for plot in _specs(stage) for spec in plot.curves}
    definitions = METRICS[_LOGS[stage.name]] if stage.name in _LOGS else ()
    units = {metric.name: metric.unit for metric in definitions}
    names = dict.fromkeys(name for step in steps for name in step)
    others = [name for name in names if name not in main | _NO_CURVE]
    extra = (
        Plot(name, (line,), x=unit, y=units.get(name) or "value")
        for name in others
        if (line := curve(name, "", steps))
    )
    return list(extra)[:MOST_EXTRA_CURVES]


def _specs(stage: Stage) -> tuple[PlotSpec, ...]:
    return next((main.plots for main in MAIN_PLOTS if main.stage is stage), ())


def curve(name: str, label: str, steps: Iterable[LogStep], colour: int = 0) -> Line | None:
    """Return one metric's points, thinned; None if it was never logged as a finite number."""
    points = [
        (position, value)
        for step in steps
        if (position := finite(step.get("step"))) is not None
        and (value := finite(step.get(name))) is not None
    ]
    if not points:
        return None
    thinned = _thin(points)
    positions, values = zip(*thinned, strict=True)
    return Line(label, positions, values, colour=colour)


def interval_line(
    label: str,
    points: Iterable[tuple[float, Estimate | None]],
    style: str = "points",
    colour: int = 0,
    baseline: float = 0.0,
) -> Line | None:
    """Return estimates with their CIs against another metric, sorted by the latter.

    Args:
        label: As in `Line`.
        points: Position on the x axis and estimate; left out where either is missing or not finite.
        style: As in `Line`.
        colour: As in `Line`.
        baseline: Subtracted from every value and end.

    Returns:
        None if no point is left; a line without CIs if a point lacks one.
    """
    measured = [
        (position, value, finite(estimate.low), finite(estimate.high))
        for position, estimate in points
        if finite(position) is not None
        and estimate is not None
        and (value := finite(estimate.value)) is not None
    ]
    measured.sort(key=lambda point: point[0])
    if not measured:
        return None
    lows = [low - baseline for _, _, low, _ in measured if low is not None]
    highs = [high - baseline for _, _, _, high in measured if high is not None]
    complete = len(lows) == len(highs) == len(measured)
    return Line(
        label,
        tuple(float(position) for position, *_ in measured),
        tuple(value - baseline for _, value, *_ in measured),
        tuple(lows) if complete else (),
        tuple(highs) if complete else (),
        style,
        colour,
    )


def at_distance(kl: float) -> float:
    """Return √KL, the distance from the reference; a sampled KL below 0 counts as 0."""
    return math.sqrt(max(kl, 0.0))


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most `MOST_POINTS` points, each the mean of a run of neighbours."""
    width = -(-len(points) // MOST_POINTS)
    runs = (points[start : start + width] for start in range(0, len(points), width))
    return [
        (sum(position for position, _ in run) / len(run), sum(value for _, value in run) / len(run))
        for run in runs
    ]
