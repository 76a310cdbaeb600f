"""Held-out evaluations during PPO: proxy and true reward, fits, best checkpoint, alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.report.blocks import Cell, Column, Note, estimate_cells, objects, plots, table
from rlhfctl.report.curves import Line, Plot, interval_line
from rlhfctl.report.numbers import finite, interval, number, share, signed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts

TRUE_REWARDS = {"gold": "gold", "held_out_rm": "the held-out reward model"}
_FITTED = " Dashed: R(d) = d (α − β ln d) with d = √KL (Gao et al. 2023)."
_CURVES = (("proxy", 2), ("true_reward", 1))  # with the page's colours
_ALONG = (
    ("KL, nats per response", "kl"),
    ("Length, tokens", "length"),
    ("Repeated n-grams", "repetition"),
    ("Certainty words", "certainty"),
    ("Hedging words", "hedging"),
    ("Entropy, nats per token", "entropy"),
    ("Fraction ended by EOS", "eos_share"),
    ("Reward model disagreement", "score_disagreement"),
    ("Scores outside the training range, fraction", "out_of_range_share"),
)


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return alarms, the curves against √KL with their fits, and the other held-out metrics."""
    evaluations, summary = facts.held_out, facts.over_optimisation
    if not evaluations and not summary:
        return ()
    alarms = _alarms(summary, len(evaluations))
    fits = _fits(summary)
    along = [_held_out_plot(title, evaluations, name) for title, name in _ALONG]
    note = Note(
        "Change since the start of PPO against √KL, with the 95 % CI of each mean. Vertical "
        f"lines: best checkpoint and alarms.{_FITTED if fits else ''}"
    )
    shown = (
        *plots(
            [_against_distance(evaluations, summary), _over_episodes(evaluations, summary)],
            large=True,
        ),
    )
    return (
        *alarms,
        *_best(summary),
        *shown,
        *((note,) if shown else ()),
        *fits,
        *plots(along, "Other held-out metrics"),
    )


def true_reward(summary: Mapping[str, Any]) -> str:
    """Return the name of the true reward."""
    return TRUE_REWARDS.get(str(summary.get("true_reward")), "the true reward")


def _alarms(summary: Mapping[str, Any], evaluations: int) -> tuple[Block, ...]:
    alarms = [alarm for alarm in summary.get("alarms") or [] if isinstance(alarm, dict)]
    count = number(summary.get("evaluations", evaluations))
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
                str(alarm.get("name", "")).replace("_", " "),
                *(number(alarm.get(key)) for key in ("step", "value", "threshold")),
                str(alarm.get("message", "")),
            )
            for alarm in alarms
        ],
    )


def _best(summary: Mapping[str, Any]) -> tuple[Block, ...]:
    best, fall = (objects(summary).get(name, {}) for name in ("best", "last_below_best"))
    if not best:
        return ()
    value, ends = estimate_cells(best, "true_reward")
    text = (
        f"Best checkpoint: episode {number(best.get('step'))}, {true_reward(summary)} {value} "
        f"({ends}), KL {number(best.get('kl'))} nats."
    )
    change = finite(fall.get("change"))
    if change:
        text += (
            f" Change from it to the last evaluation: {signed(change)} "
            f"({interval(fall, 'change', signed)}). Corrected for selecting the best of several "
            + (
                "evaluations, this fall is significant."
                if summary.get("fallen")
                else "evaluations, this fall is not significant."
            )
        )
    if summary.get("stopped_early"):
        text += " PPO stopped early because of it."
    return (Note(text),)


def _against_distance(
    evaluations: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> Plot | None:
    """Return the change of both rewards against √KL to SFT, with fitted curves."""
    lines = []
    for name, colour in _CURVES:
        first = next(
            (start for row in evaluations if (start := finite(row.get(name))) is not None), 0.0
        )
        label = _label(name, summary)
        seen = interval_line(label, evaluations, "sqrt_kl", name, colour=colour, baseline=first)
        fitted = _fitted(_fit(summary, name), f"{label}, fitted", colour)
        lines += [line for line in (seen, fitted) if line is not None]
    best = objects(summary).get("best", {})
    distances = [
        finite(row.get("sqrt_kl")) for row in evaluations if row.get("step") == best.get("step")
    ]
    marks = tuple(mark for mark in distances if mark is not None)
    return Plot("Change against √KL", tuple(lines), marks, whole_steps=False) if lines else None


def _over_episodes(
    evaluations: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> Plot | None:
    """Return both rewards over episodes, with marks at the best checkpoint and at alarms."""
    events = [objects(summary).get("best", {}), *(summary.get("alarms") or [])]
    steps = (finite(event.get("step")) for event in events if isinstance(event, dict))
    lines = (
        interval_line(_label(name, summary), evaluations, "step", name, colour=colour)
        for name, colour in _CURVES
    )
    marks = tuple(sorted({step for step in steps if step is not None}))
    return Plot("Mean over episodes", tuple(line for line in lines if line is not None), marks)


def _held_out_plot(title: str, evaluations: Sequence[Mapping[str, Any]], name: str) -> Plot | None:
    line = interval_line("", evaluations, "step", name)
    return Plot(title, (line,)) if line else None


def _label(name: str, summary: Mapping[str, Any]) -> str:
    return "proxy" if name == "proxy" else true_reward(summary).removeprefix("the ")


def _fit(summary: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return objects(summary.get("fits")).get(name, {})


def _fitted(fit: Mapping[str, Any], label: str, colour: int) -> Line | None:
    curve = fit.get("curve")
    points = [
        (distance, value)
        for point in (curve if isinstance(curve, list) else [])
        if isinstance(point, list)
        and len(point) == 2
        and (distance := finite(point[0])) is not None
        and (value := finite(point[1])) is not None
    ]
    if len(points) < 2:
        return None
    distances, values = zip(*points, strict=True)
    return Line(label, distances, values, style="dashed", colour=colour)


def _fits(summary: Mapping[str, Any]) -> tuple[Block, ...]:
    rows: list[tuple[Cell, ...]] = []
    for name, _ in _CURVES:
        fit = _fit(summary, name)
        if not fit:
            continue
        label = _label(name, summary).capitalize()
        rows += [
            (f"{label}: α", *estimate_cells(fit, "alpha")),
            (f"{label}: β", *estimate_cells(fit, "beta")),
            (f"{label}: R²", share(fit.get("r_squared")), ""),
        ]
        peak = fit.get("peak")
        if isinstance(peak, dict):
            beyond = "" if peak.get("observed") else ", extrapolated"
            rows += [
                (f"{label}: peak at √KL{beyond}", *estimate_cells(peak, "distance")),
                (f"{label}: change at the peak", *estimate_cells(peak, "value")),
            ]
    return table(
        "Fitted curves. An extrapolated peak lies beyond the measured KL.",
        (Column("Fit"), Column("Value", "number"), Column("95 % CI", "number")),
        rows,
    )
