"""What PPO did to held-out prompts along the way: proxy and true reward, fits, best, alarms."""

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
    ("KL, nats a response", "kl"),
    ("Length, tokens", "length"),
    ("Repeated n-grams", "repetition"),
    ("Certainty words", "certainty"),
    ("Hedging words", "hedging"),
    ("Entropy, nats a token", "entropy"),
    ("Share ended by EOS", "eos_share"),
    ("Disagreement of reward models", "score_disagreement"),
    ("Share of scores out of the range seen in training", "out_of_range_share"),
)


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return alarms, the curves against √KL with their fits, and the metrics along the way."""
    looks, summary = facts.held_out, facts.over_optimisation
    if not looks and not summary:
        return ()
    alarms = _alarms(summary, len(looks))
    found = _fits(summary)
    along = [_watched(title, looks, name) for title, name in _ALONG]
    note = Note(
        "Against √KL: the change since PPO began, with the 95 % interval of each mean. Upright "
        f"lines: the best look, and alarms.{_FITTED if found else ''}"
    )
    shown = (
        *plots([_against_distance(looks, summary), _over_episodes(looks, summary)], large=True),
    )
    return (
        *alarms,
        *_best(summary),
        *shown,
        *((note,) if shown else ()),
        *found,
        *plots(along, "What else was watched on held-out prompts"),
    )


def true_reward(summary: Mapping[str, Any]) -> str:
    """Return what stands in for the true reward, in words."""
    return TRUE_REWARDS.get(str(summary.get("true_reward")), "the true reward")


def _alarms(summary: Mapping[str, Any], looks: int) -> tuple[Block, ...]:
    alarms = [alarm for alarm in summary.get("alarms") or [] if isinstance(alarm, dict)]
    count = number(summary.get("evaluations", looks))
    if not alarms:
        return (Note(f"No alarm was raised in {count} looks at held-out prompts."),)
    return table(
        f"Alarms raised in {count} looks at held-out prompts: an audit, not a guarantee. The "
        "thresholds are the recipe's.",
        (
            Column("Alarm"),
            Column("Episode", "number"),
            Column("Value", "number"),
            Column("Threshold", "number"),
            Column("What was seen", "sentence"),
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
    told = (
        f"Best look: at {number(best.get('step'))} episodes, {true_reward(summary)} at {value} ({ends}) "
        f"and {number(best.get('kl'))} nats of KL."
    )
    change = finite(fall.get("change"))
    if change:
        told += (
            f" From there to the last look it changed by {signed(change)} "
            f"({interval(fall, 'change', signed)}); the best of many looks is partly the luckiest, and "
            + (
                "by a test that allows for that it has fallen."
                if summary.get("fallen")
                else "a test that allows for that finds no fall."
            )
        )
    if summary.get("stopped_early"):
        told += " PPO was stopped early for that."
    return (Note(told),)


def _against_distance(
    looks: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> Plot | None:
    """Return the change of both rewards against the distance from SFT, with what was fitted."""
    lines = []
    for name, colour in _CURVES:
        first = next(
            (start for look in looks if (start := finite(look.get(name))) is not None), 0.0
        )
        label = _label(name, summary)
        seen = interval_line(label, looks, "sqrt_kl", name, colour=colour, less=first)
        fitted = _fitted(_fit(summary, name), f"{label}, fitted", colour)
        lines += [line for line in (seen, fitted) if line is not None]
    best = objects(summary).get("best", {})
    at = [finite(look.get("sqrt_kl")) for look in looks if look.get("step") == best.get("step")]
    marks = tuple(mark for mark in at if mark is not None)
    return Plot("Change against √KL", tuple(lines), marks, whole_steps=False) if lines else None


def _over_episodes(looks: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Plot | None:
    """Return both rewards over episodes, with marks at the best look and at alarms."""
    events = [objects(summary).get("best", {}), *(summary.get("alarms") or [])]
    steps = (finite(event.get("step")) for event in events if isinstance(event, dict))
    lines = (
        interval_line(_label(name, summary), looks, "step", name, colour=colour)
        for name, colour in _CURVES
    )
    marks = tuple(sorted({step for step in steps if step is not None}))
    return Plot("Mean over episodes", tuple(line for line in lines if line is not None), marks)


def _watched(title: str, looks: Sequence[Mapping[str, Any]], name: str) -> Plot | None:
    line = interval_line("", looks, "step", name)
    return Plot(title, (line,)) if line else None


def _label(name: str, summary: Mapping[str, Any]) -> str:
    return "proxy" if name == "proxy" else true_reward(summary).removeprefix("the ")


def _fit(summary: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return objects(summary.get("fits")).get(name, {})


def _fitted(fit: Mapping[str, Any], label: str, colour: int) -> Line | None:
    curve = fit.get("curve")
    points = [
        (at, value)
        for point in (curve if isinstance(curve, list) else [])
        if isinstance(point, list)
        and len(point) == 2
        and (at := finite(point[0])) is not None
        and (value := finite(point[1])) is not None
    ]
    if len(points) < 2:
        return None
    ats, values = zip(*points, strict=True)
    return Line(label, ats, values, style="dashed", colour=colour)


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
            (f"{label}: share of variance explained", share(fit.get("r_squared")), ""),
        ]
        peak = fit.get("peak")
        if isinstance(peak, dict):
            beyond = "" if peak.get("observed") else ", beyond what was seen"
            rows += [
                (f"{label}: peak at √KL{beyond}", *estimate_cells(peak, "distance")),
                (f"{label}: change at the peak", *estimate_cells(peak, "value")),
            ]
    return table(
        "The fitted curves; a peak beyond what was seen is a forecast.",
        (Column("Fit"), Column("Value", "number"), Column("95 % interval", "number")),
        rows,
    )
