"""Page of a comparison of methods: one table at equal KL, and their frontiers together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rlhfctl.report.blocks import Block, Cell, Column, Note, Section, estimate_cell, plots, table
from rlhfctl.report.curves import Line, Plot, at_distance
from rlhfctl.report.html import write
from rlhfctl.report.numbers import duration, number, share, size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rlhfctl.results.estimate import Estimate
    from rlhfctl.results.methods import FrontierPoint, MethodRun, MethodsResult, MethodSummary

TITLES = {
    "ppo": "PPO",
    "rloo": "RLOO",
    "grpo": "GRPO",
    "batch_mean": "REINFORCE, batch mean",
    "dpo": "DPO",
    "best_of_n": "Best of n",
}
_JUDGES = {"gold": "gold reward", "held_out_rm": "held-out reward model"}
_RULE = (
    "A method's value at a KL is read off its frontier, linear in √KL between the two policies "
    "around it. The frontier of PPO, RLOO and GRPO is the held-out evaluations of one run; of DPO, "
    "the results of three values of beta; of best of n, n = 2, 4, … The KL of best of n is "
    "ln n − (n − 1) / n, and its time has no training: it samples n responses each time it is used."
)


def html(name: str, result: MethodsResult) -> str:
    """Return the comparison as one self-contained page."""
    parts = sections(result)
    view = {
        "name": name,
        "kind": "comparison of methods",
        "summary": [("recipe", result.recipe)],
        "sections": parts,
        "contents": [(part.anchor, part.title) for part in parts],
    }
    return write("sections.html.j2", view)


def sections(result: MethodsResult) -> list[Section]:
    """Return the sections that are not empty."""
    parts = (
        ("At equal KL", _table(result)),
        ("Frontiers", _frontiers(result)),
        ("Runs", _runs(result)),
    )
    return [Section(title, blocks) for title, blocks in parts if blocks]


def _table(result: MethodsResult) -> tuple[Block, ...]:
    judge = _JUDGES[result.judge]
    place = f"at a KL of {number(result.kl)} nats" if result.kl is not None else "at equal KL"
    columns = (
        Column("Method"),
        Column(f"Win rate over SFT {place}", "number"),
        Column(f"Gain {place}", "number"),
        Column("KL of the result, nats", "number"),
        Column("Win rate of the result", "number"),
        Column("Gain of the result", "number"),
        Column("Gain in the training reward", "number"),
        Column("Over-optimisation", "number"),
        Column("Training time", "number"),
        Column("With shared stages", "number"),
        Column("Peak memory", "number"),
    )
    caption = (
        f"Win rate and gain by {judge}. Means over seeds, with 95 % CIs between seeds. "
        "Over-optimisation is the gain at the largest KL minus the best gain on the frontier: at "
        "most 0, and below it by selection even where nothing is lost."
    )
    blocks = table(caption, columns, [_row(method) for method in result.methods])
    return (*blocks, Note(_RULE)) if blocks else ()


def _row(method: MethodSummary) -> tuple[Cell, ...]:
    return (
        TITLES.get(method.method, method.method),
        estimate_cell(method.win_rate_at_kl, share),
        estimate_cell(method.gain_at_kl, number),
        estimate_cell(method.kl, number),
        estimate_cell(method.win_rate, share),
        estimate_cell(method.gain, number),
        estimate_cell(method.proxy_gain, number),
        estimate_cell(method.over_optimisation, number),
        _mean(method.seconds, duration),
        _mean(method.total_seconds, duration),
        _mean(method.memory_bytes, size_of),
    )


def _mean(estimate: Estimate | None, form: Callable[[float], str]) -> str:
    return form(estimate.value) if estimate is not None else ""


def _frontiers(result: MethodsResult) -> tuple[Block, ...]:
    finished = [run for run in result.runs if run.status == "done"]
    values: tuple[tuple[str, Callable[[FrontierPoint], float | None]], ...] = (
        ("Win rate over SFT", lambda point: point.win_rate),
        ("Gain", lambda point: point.gain),
        ("Gain in the training reward", lambda point: point.proxy_gain),
    )
    pictures = [
        Plot(
            f"{title} against √KL",
            tuple(_lines(finished, value)),
            "√KL to SFT, √nats",
            title,
            whole_steps=False,
        )
        for title, value in values
    ]
    drawn = plots(pictures, large=True)
    note = Note("One line per method and seed, from SFT on; methods share a colour.")
    return (*drawn, note) if drawn else ()


def _lines(runs: Sequence[MethodRun], value: Callable[[FrontierPoint], float | None]) -> list[Line]:
    """Return a line per run; the first of each method has its label."""
    methods = list(dict.fromkeys(run.method for run in runs))
    labelled: set[str] = set()
    lines = []
    for run in runs:
        points = [
            (at_distance(point.kl), height)
            for point in run.frontier
            if (height := value(point)) is not None
        ]
        if not points:
            continue
        steps, heights = zip(*points, strict=True)
        label = TITLES.get(run.method, run.method)
        line = Line(label, steps, heights, style="points", colour=methods.index(run.method) + 1)
        lines.append(line if run.method not in labelled else replace(line, label=""))
        labelled.add(run.method)
    return lines


def _runs(result: MethodsResult) -> tuple[Block, ...]:
    columns = (
        Column("Method"),
        Column("Seed"),
        Column("KL of the result, nats", "number"),
        Column("Win rate of the result", "number"),
        Column("Gain of the result", "number"),
        Column("Training time", "number"),
        Column("Alarms"),
        Column("Status"),
        Column("Run folders"),
    )
    return table("One row per method and seed.", columns, [_run(run) for run in result.runs])


def _run(run: MethodRun) -> tuple[Cell, ...]:
    point = run.result
    return (
        TITLES.get(run.method, run.method),
        str(run.seed),
        number(point.kl) if point else "",
        share(point.win_rate) if point else "",
        number(point.gain) if point else "",
        duration(run.seconds) if run.seconds is not None else "",
        ", ".join(name.replace("_", " ") for name in run.alarms),
        run.error.message if run.error else run.status,
        ", ".join(run.runs),
    )
