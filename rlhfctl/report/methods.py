"""Page of a comparison of methods: one table at equal KL, and their frontiers together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.report import markdown
from rlhfctl.report.blocks import (
    Block,
    Cell,
    Column,
    Note,
    Section,
    estimate_cell,
    plots,
    table,
    warnings,
)
from rlhfctl.report.curves import Line, Plot, at_distance, interval_line
from rlhfctl.report.html import write
from rlhfctl.report.numbers import duration, number, share, size_of
from rlhfctl.report.values import finite_only
from rlhfctl.results.io import read_result, to_json
from rlhfctl.results.methods import MethodsResult
from rlhfctl.run.directory import METHODS_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rlhfctl.results.estimate import Estimate
    from rlhfctl.results.methods import MeanPoint, MethodRun, MethodSummary

TITLES = {
    "ppo": "PPO",
    "rloo": "RLOO",
    "grpo": "GRPO",
    "batch_mean": "REINFORCE, batch mean",
    "dpo": "DPO",
    "best_of_n": "Best of n",
}
_SMALL_KL = 0.1
_JUDGES = {"gold": "gold reward", "held_out_rm": "held-out reward model"}
_RULE = (
    "A method's value at a KL is read off its frontier, linear in √KL between the two policies "
    "around it. The frontier of PPO, RLOO and GRPO is the held-out evaluations of one run; of DPO, "
    "the results of three values of beta; of best of n, n = 2, 4, … The KL of best of n is "
    "ln n − (n − 1) / n, and its time has no training: it samples n responses each time it is used."
)


@dataclass(frozen=True)
class Methods:
    """A comparison's name and results."""

    name: str
    result: MethodsResult


def read(root: Path) -> Methods:
    """Read the comparison of a folder.

    Raises:
        CheckpointError: Its file is damaged, or written by another version of rlhfctl.
    """
    return Methods(root.resolve().name, read_result(MethodsResult, root / METHODS_FILE))


def markdown_text(methods: Methods) -> str:
    """Return the comparison as Markdown."""
    head = [f"## {markdown.plain(methods.name)}: comparison of methods", ""]
    return "\n".join([*head, *markdown.written(sections(methods.result))])


def value(methods: Methods) -> dict[str, Any]:
    """Return the comparison as a JSON object."""
    cleaned: dict[str, Any] = finite_only({"comparison": methods.name, **to_json(methods.result)})
    return cleaned


def html(methods: Methods) -> str:
    """Return the comparison as one self-contained page."""
    parts = sections(methods.result)
    view = {
        "name": methods.name,
        "kind": "comparison of methods",
        "summary": [("recipe", methods.result.recipe)],
        "sections": parts,
        "contents": [(part.anchor, part.title) for part in parts],
    }
    return write("sections.html.j2", view)


def sections(result: MethodsResult) -> list[Section]:
    """Return the sections that are not empty."""
    parts = (
        ("At equal KL", _table(result)),
        ("Frontiers", _frontiers(result)),
        ("Cost", _costs(result)),
        ("Runs", _runs(result)),
    )
    return [Section(title, blocks) for title, blocks in parts if blocks]


def _table(result: MethodsResult) -> tuple[Block, ...]:
    judge = _JUDGES[result.judge]
    place = f"at a KL of {number(result.kl)}" if result.kl is not None else "at equal KL"
    columns = (
        Column("Method"),
        Column(f"Win rate {place}", "number"),
        Column(f"Gain {place}", "number"),
        Column("KL of the result", "number"),
        Column("Its win rate", "number"),
        Column("Its gain", "number"),
    )
    caption = (
        f"Win rate over SFT, and gain over SFT in the {judge}; KL in nats per response. Means over "
        "seeds, with 95 % CIs between seeds."
    )
    blocks = table(caption, columns, [_row(method) for method in result.methods])
    if not blocks:
        return ()
    if result.kl is None or result.kl < _SMALL_KL:
        blocks += warnings(["Some method has hardly moved from SFT, so this KL compares little."])
    return (*blocks, Note(_RULE))


def _row(method: MethodSummary) -> tuple[Cell, ...]:
    return (
        TITLES.get(method.method, method.method),
        estimate_cell(method.win_rate_at_kl, share),
        estimate_cell(method.gain_at_kl, number),
        estimate_cell(method.kl, number),
        estimate_cell(method.win_rate, share),
        estimate_cell(method.gain, number),
    )


def _costs(result: MethodsResult) -> tuple[Block, ...]:
    columns = (
        Column("Method"),
        Column("Training time", "number"),
        Column("With SFT and reward model", "number"),
        Column("Peak memory", "number"),
        Column("Gain in the training reward", "number"),
        Column("Over-optimisation", "number"),
    )
    caption = (
        "Means over seeds. DPO needs no reward model. Over-optimisation is the gain at the largest "
        "KL minus the best gain on the frontier: at most 0, and below it by selection even where "
        "nothing is lost."
    )
    return table(caption, columns, [_cost(method) for method in result.methods])


def _cost(method: MethodSummary) -> tuple[Cell, ...]:
    return (
        TITLES.get(method.method, method.method),
        _mean(method.seconds, duration),
        _mean(method.total_seconds, duration),
        _mean(method.memory_bytes, size_of),
        estimate_cell(method.proxy_gain, number),
        estimate_cell(method.over_optimisation, number),
    )


def _mean(estimate: Estimate | None, form: Callable[[float], str]) -> str:
    return form(estimate.value) if estimate is not None else ""


def _frontiers(result: MethodsResult) -> tuple[Block, ...]:
    values: tuple[tuple[str, Callable[[MeanPoint], Estimate | None]], ...] = (
        ("Win rate over SFT", lambda point: point.win_rate),
        ("Gain", lambda point: point.gain),
        ("Gain in the training reward", lambda point: point.proxy_gain),
    )
    pictures = [
        Plot(
            f"{title} against √KL",
            tuple(line for line in _lines(result.methods, value) if line is not None),
            "√KL to SFT, √nats",
            title,
            whole_steps=False,
        )
        for title, value in values
    ]
    drawn = plots(pictures, large=True)
    note = Note(
        "One line per method: its mean over seeds, as far as all of its seeds reach, with 95 % CIs "
        "between seeds. Bold: the value at its end."
    )
    return (*drawn, note) if drawn else ()


def _lines(
    methods: Sequence[MethodSummary], value: Callable[[MeanPoint], Estimate | None]
) -> Iterator[Line | None]:
    for number_of_method, method in enumerate(methods, start=1):
        points = [(at_distance(point.kl), value(point)) for point in method.frontier]
        title = TITLES.get(method.method, method.method)
        yield interval_line(title, points, colour=number_of_method)


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
