"""Which curves a report shows, and their points."""

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
    """One figure over the steps of a stage.

    Attributes:
        label: What it is called beside another line; empty when it is alone.
        steps: [points] increasing.
        values: [points] finite.
    """

    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Plot:
    """One small plot: a title and one or two lines."""

    title: str
    lines: tuple[Line, ...]


# Of each stage: the title of a plot, and its figures' names with their labels.
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
    """Return the stage's plots, in their order, of those figures that were logged."""
    found = (
        Plot(
            title,
            tuple(line for name, label in names.items() if (line := _line(name, label, steps))),
        )
        for title, names in SHOWN.get(stage, ())
    )
    return [plot for plot in found if plot.lines]


def extra_plots(stage: str, steps: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Return a plot of every other logged figure, under its own name."""
    shown = {name for _, names in SHOWN.get(stage, ()) for name in names}
    names = dict.fromkeys(name for step in steps for name in step)
    others = [name for name in names if name not in shown | _NO_CURVE]
    found = (Plot(name, (line,)) for name in others if (line := _line(name, "", steps)))
    return list(found)[:MOST_EXTRA_CURVES]


def _line(name: str, label: str, steps: Iterable[Mapping[str, Any]]) -> Line | None:
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
    return Line(label, tuple(at for at, _ in thinned), tuple(value for _, value in thinned))


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most `MOST_POINTS` points, each the mean of a run of neighbours."""
    width = -(-len(points) // MOST_POINTS)
    runs = (points[start : start + width] for start in range(0, len(points), width))
    return [
        (sum(at for at, _ in run) / len(run), sum(value for _, value in run) / len(run))
        for run in runs
    ]
