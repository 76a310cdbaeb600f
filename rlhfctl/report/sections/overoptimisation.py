"""Held-out evaluations during PPO: proxy and true reward, fits, best checkpoint, alarms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.report.blocks import Cell, Column, Note, estimate_cells, plots, table
from rlhfctl.report.curves import Line, Mark, Plot, interval_line
from rlhfctl.report.numbers import as_estimate, finite, interval, number, share, signed, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.estimate import Estimate
    from rlhfctl.results.training import (
        HeldOutLine,
        OverOptimisation,
        OverOptimisationFit,
        Peak,
    )

    Metric = Callable[[HeldOutLine], Estimate | float | None]

ACTS = {"raise_beta": "beta raised", "rollback": "rollback", "stop": "PPO stopped"}
TRUE_REWARDS = {"gold": "gold", "held_out_rm": "the held-out reward model"}
_FITTED = " Dashed: R(d) = d (α − β ln d) with d = √KL (Gao et al. 2023)."
_ALONG: tuple[tuple[str, str, Metric], ...] = (
    ("KL to the reference", "nats per response", lambda line: line.kl),
    ("Length", "tokens", lambda line: line.length),
    ("Repeated n-grams", "fraction", lambda line: line.repetition),
    ("Certainty words", "fraction of responses", lambda line: line.certainty),
    ("Hedging words", "fraction of responses", lambda line: line.hedging),
    ("Entropy", "nats per token", lambda line: line.entropy),
    ("Ended by EOS", "fraction of responses", lambda line: line.eos_share),
    ("Reward model disagreement", "standard deviation", lambda line: line.score_disagreement),
    ("Scores outside the training range", "fraction", lambda line: line.out_of_range_share),
    ("Scores at the clip", "fraction", lambda line: line.saturated_share),
    ("Distance of reward model states", "Mahalanobis / √H", lambda line: line.state_distance),
)
DISTANCE = "√KL to SFT, √nats"


@dataclass(frozen=True)
class _Reward:
    """One of the two rewards: name in the fits, label, colour of the page, held-out metric."""

    name: str
    label: str
    colour: int
    metric: Callable[[HeldOutLine], Estimate | None]


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return alarms, the curves against √KL with their fits, and the other held-out metrics."""
    lines, summary = facts.held_out, facts.over_optimisation
    if not lines and summary is None:
        return ()
    rewards = _rewards(summary)
    fits = _fits(summary, rewards, max((line.sqrt_kl for line in lines), default=0.0))
    note = Note(
        "Change since the start of PPO against √KL, with the 95 % CI of each mean. Vertical "
        f"lines: best checkpoint, alarms and actions on them.{_FITTED if fits else ''}"
    )
    pictures = [_against_distance(lines, summary, rewards), over_episodes(lines, summary)]
    shown = plots(pictures, large=True)
    along = [_held_out_plot(title, unit, lines, metric) for title, unit, metric in _ALONG]
    return (
        *_alarms(summary, len(lines)),
        *_acts(summary),
        *_best(summary),
        *shown,
        *((note,) if shown else ()),
        *fits,
        *plots(along, "Other held-out metrics"),
    )


def _true_reward(summary: OverOptimisation | None) -> str:
    name = summary.true_reward if summary else None
    return TRUE_REWARDS.get(name or "", "the true reward")


def _rewards(summary: OverOptimisation | None) -> tuple[_Reward, _Reward]:
    label = _true_reward(summary).removeprefix("the ")
    return (
        _Reward("proxy", "proxy", 2, lambda line: line.proxy),
        _Reward("true_reward", label, 1, lambda line: line.true_reward),
    )


def _alarms(summary: OverOptimisation | None, evaluations: int) -> tuple[Block, ...]:
    alarms = summary.alarms if summary else []
    count = number(summary.evaluations if summary else evaluations)
    if not alarms:
        return (Note(f"{count} held-out evaluations, no alarms."),)
    return table(
        f"Alarms in {count} held-out evaluations, at the recipe's thresholds. No alarm is no "
        "guarantee.",
        (
            Column("Alarm"),
            Column("Episode", "number"),
            Column("Value", "number"),
            Column("Threshold", "number"),
            Column("Message", "sentence"),
        ),
        [
            (
                alarm.name.replace("_", " "),
                *map(number, (alarm.step, alarm.value, alarm.threshold)),
                alarm.message,
            )
            for alarm in alarms
        ],
    )


def _acts(summary: OverOptimisation | None) -> tuple[Block, ...]:
    """Return a table of what was done on alarms."""
    return table(
        "Actions on alarms (ppo.on_alarm), at the episodes sampled until then; after a rollback the "
        "policy is that of an earlier episode.",
        (
            Column("Action"),
            Column("Episode", "number"),
            Column("Alarms"),
            Column("Back to episode", "number"),
            Column("Beta before", "number"),
            Column("Beta after", "number"),
        ),
        [
            (
                ACTS[act.kind],
                number(act.step),
                ", ".join(name.replace("_", " ") for name in act.alarms),
                "" if act.restored_step is None else number(act.restored_step),
                number(act.beta_before),
                number(act.beta),
            )
            for act in (summary.acts if summary else None) or ()
        ],
    )


def _best(summary: OverOptimisation | None) -> tuple[Block, ...]:
    if summary is None or summary.best is None:
        return ()
    best = summary.best
    value, ends = estimate_cells(best.true_reward)
    text = (
        f"Best checkpoint: episode {number(best.step)}, {_true_reward(summary)} {value} "
        f"({ends}), KL {number(best.kl)} nats."
    )
    change = summary.last_below_best.change if summary.last_below_best else None
    if value_of(change):
        text += (
            f" Change from it to the last evaluation: {signed(value_of(change))} "
            f"({interval(change, signed)}). Corrected for selecting the best of several "
            + (
                "evaluations, this fall is significant."
                if summary.fallen
                else "evaluations, this fall is not significant."
            )
        )
    if summary.stopped_early:
        text += " PPO stopped early because of it."
    return (Note(text),)


def _against_distance(
    lines: Sequence[HeldOutLine], summary: OverOptimisation | None, rewards: Sequence[_Reward]
) -> Plot | None:
    """Return the change of both rewards against √KL to SFT, with fitted curves."""
    drawn = []
    for reward in rewards:
        values = (value_of(reward.metric(line)) for line in lines)
        first = next((value for value in values if value is not None), 0.0)
        points = [(line.sqrt_kl, reward.metric(line)) for line in lines]
        seen = interval_line(reward.label, points, colour=reward.colour, baseline=first)
        fitted = _fitted(_fit(summary, reward), f"{reward.label}, fitted", reward.colour)
        drawn += [line for line in (seen, fitted) if line is not None]
    if not drawn:
        return None
    best = summary.best if summary else None
    marks = tuple(
        Mark(float(line.sqrt_kl), "best") for line in lines if best and line.step == best.step
    )
    return Plot(
        "Change against √KL",
        tuple(drawn),
        DISTANCE,
        "change of the mean score",
        marks,
        whole_steps=False,
    )


def over_episodes(
    lines: Sequence[HeldOutLine], summary: OverOptimisation | None, size: str = "large"
) -> Plot:
    """Return both rewards over episodes, with marks at the best checkpoint, alarms, acts."""
    drawn = (
        interval_line(
            reward.label,
            [(line.step, reward.metric(line)) for line in lines],
            colour=reward.colour,
        )
        for reward in _rewards(summary)
    )
    best = summary.best if summary else None
    acts = sorted({act.step for act in (summary.acts or ())}) if summary else []
    alarms = sorted({alarm.step for alarm in summary.alarms}.difference(acts)) if summary else []
    marks = (
        *((Mark(float(best.step), "best"),) if best else ()),
        *(Mark(float(step), "alarm") for step in alarms),
        *(Mark(float(step), "act") for step in acts),
    )
    return Plot(
        "Proxy and true reward on held-out prompts",
        tuple(line for line in drawn if line is not None),
        "episodes",
        "mean score per response, 95 % CI",
        marks,
        size=size,
    )


def _held_out_plot(
    title: str, unit: str, lines: Sequence[HeldOutLine], metric: Metric
) -> Plot | None:
    points = [(line.step, as_estimate(metric(line))) for line in lines]
    line = interval_line("", points)
    return Plot(title, (line,), "episodes", unit) if line else None


def _fit(summary: OverOptimisation | None, reward: _Reward) -> OverOptimisationFit | None:
    return summary.fits.get(reward.name) if summary else None


def _fitted(fit: OverOptimisationFit | None, label: str, colour: int) -> Line | None:
    points = [
        (x, y)
        for distance, value in (fit.curve if fit else [])
        if (x := finite(distance)) is not None and (y := finite(value)) is not None
    ]
    if len(points) < 2:
        return None
    distances, values = zip(*points, strict=True)
    return Line(label, distances, values, style="dashed", colour=colour)


def _fits(
    summary: OverOptimisation | None, rewards: Sequence[_Reward], farthest: float
) -> tuple[Block, ...]:
    """Return the fitted parameters; `farthest` is the largest measured √KL."""
    rows: list[tuple[Cell, ...]] = []
    for reward in rewards:
        fit = _fit(summary, reward)
        if fit is None:
            continue
        label = reward.label.capitalize()
        rows += [
            (f"{label}: α", *estimate_cells(fit.alpha)),
            (f"{label}: β", *estimate_cells(fit.beta)),
            (f"{label}: R²", share(fit.r_squared), ""),
        ]
        if fit.peak is not None:
            rows += _peak(label, fit.peak, farthest)
    return table(
        f"Fitted curves, over √KL from 0 to {number(farthest)}.",
        (Column("Fit"), Column("Value", "number"), Column("95 % CI", "number")),
        rows,
        folded="Fitted parameters",
    )


def _peak(label: str, peak: Peak, farthest: float) -> list[tuple[Cell, ...]]:
    """Return position and height of a peak; extrapolated ends are not numbers to rely on."""
    if not peak.observed:
        return [(f"{label}: no peak within the observed range", "", "")]
    low, high = finite(peak.distance.low), finite(peak.distance.high)
    position = estimate_cells(peak.distance)
    if low is not None and high is not None and high > farthest:
        open_ended = f"{number(low)} to beyond the observed range"
        return [
            (f"{label}: peak at √KL", position[0], open_ended),
            (f"{label}: change at the peak", number(peak.value.value), ""),
        ]
    return [
        (f"{label}: peak at √KL", *position),
        (f"{label}: change at the peak", *estimate_cells(peak.value)),
    ]
