"""The report: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rlhfctl import __version__
from rlhfctl.report import curves, samples, tables, verdict
from rlhfctl.report.numbers import duration, number
from rlhfctl.report.plots import svg
from rlhfctl.report.sources import STAGES, RunFacts, read_run
from rlhfctl.run.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from rlhfctl.run.manifest import StageRecord

_LINE_CLASSES = ("line-1", "line-2")


@dataclass(frozen=True)
class DrawnPlot:
    """A plot with its picture, and each line's class, label and last value."""

    title: str
    picture: Markup
    lines: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class StageCurves:
    """The curves of one stage; `extra` are those of figures that few people watch."""

    title: str
    unit: str
    plots: tuple[DrawnPlot, ...]
    extra: tuple[DrawnPlot, ...]


def render(root: Path) -> str:
    """Return the report on a run folder as one self-contained HTML page.

    It shows whatever is there: a stage that has not run leaves its section out. Text of models
    and data sets is escaped, its unseen characters spelt out, and the page asks for nothing from
    outside and runs no script.

    Raises:
        CheckpointError: If there is no run folder, or a file in it is damaged.
    """
    facts = read_run(root)
    return _environment().get_template("report.html.j2").render(_view(facts))


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("rlhfctl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    """Spell out unseen characters in everything a template writes, markup of our own aside."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _view(facts: RunFacts) -> dict[str, Any]:
    records = list(facts.records.values())
    return {
        "name": facts.name,
        "verdict": verdict.judge(facts),
        "summary": _summary(records),
        "stages": tables.stage_tables(facts),
        "win_rates": tables.win_rate_rows(facts.figures),
        "comparisons": tables.comparisons(facts.figures),
        "prompts": number(facts.figures.get("prompts")),
        "gold_known": "gold_win_rate" in facts.figures,
        "reward_model": tables.reward_model_rows(facts.metrics("rm")),
        "curves": [found for stage in STAGES if (found := _stage_curves(facts, stage)).plots],
        "samples": samples.held_out(facts.samples),
        "training_samples": samples.of_training(facts.training_samples),
        "versions": _versions(records),
        "artifacts": _artifacts(records),
        "recipe": facts.recipe,
        "version": __version__,
    }


def _summary(records: Sequence[StageRecord]) -> list[tuple[str, str]]:
    """Return what was run, from what, when: a line below the title."""
    if not records:
        return []
    first = min(records, key=lambda record: record.started)
    model = first.recipe_part.get("model")
    base = model.get("name_or_path") if isinstance(model, dict) else None
    seeds = sorted({record.seed for record in records})
    facts = [
        ("base model", str(base) if base else ""),
        ("seed", ", ".join(map(str, seeds))),
        ("started", first.started[:16].replace("T", " ") + " UTC"),
        ("time in finished stages", duration(sum(record.seconds for record in records))),
    ]
    return [(label, value) for label, value in facts if value]


def _stage_curves(facts: RunFacts, stage: str) -> StageCurves:
    steps = facts.curves.get(stage, [])
    return StageCurves(
        tables.TITLES[stage],
        _unit(facts, stage),
        tuple(map(_drawn, curves.plots(stage, steps))),
        tuple(map(_drawn, curves.extra_plots(stage, steps))),
    )


def _unit(facts: RunFacts, stage: str) -> str:
    """Return what a stage's steps count: the figure that its last step equals, else steps."""
    steps = facts.curves.get(stage, [])
    last = steps[-1].get("step") if steps else None
    for unit in ("episodes", "rollouts"):
        if last is not None and facts.metrics(stage).get(unit) == last:
            return unit
    return "steps"


def _drawn(plot: curves.Plot) -> DrawnPlot:
    lines = zip(_LINE_CLASSES, plot.lines, strict=False)
    ends = tuple((kind, line.label, number(line.values[-1])) for kind, line in lines)
    return DrawnPlot(plot.title, svg(plot), ends)


def _versions(records: Iterable[StageRecord]) -> list[tuple[str, str]]:
    """Return each package's version; where stages differ, each with its stages."""
    found: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for package, version in record.versions.items():
            found[package][version].append(record.stage)
    return [(package, _joined(versions)) for package, versions in found.items()]


def _joined(versions: Mapping[str, Sequence[str]]) -> str:
    if len(versions) == 1:
        return next(iter(versions))
    return "; ".join(f"{version} ({', '.join(stages)})" for version, stages in versions.items())


def _artifacts(records: Iterable[StageRecord]) -> list[tuple[str, str, str, str]]:
    """Return (stage, direction, path, SHA-256) of everything that went in and came out."""
    return [
        (tables.TITLES.get(record.stage, record.stage), direction, artifact.path, artifact.sha256)
        for record in records
        for direction, side in (("in", record.inputs), ("out", record.outputs))
        for artifact in side.values()
    ]
