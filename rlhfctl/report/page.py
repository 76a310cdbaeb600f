"""Report of a run as one self-contained HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.report import curves, provenance, samples, verdict
from rlhfctl.report.html import write
from rlhfctl.report.sections import sections
from rlhfctl.report.sources import RunFacts, read_run
from rlhfctl.stage_table import STAGES

if TYPE_CHECKING:
    from pathlib import Path

    from rlhfctl.stage_table import Stage


@dataclass(frozen=True)
class StageCurves:
    """The curves of one stage; `extra` holds the less common metrics."""

    title: str
    unit: str
    plots: tuple[curves.Plot, ...]
    extra: tuple[curves.Plot, ...]


def render(root: Path) -> str:
    """Return the report on a run folder as one self-contained HTML page.

    Sections of stages that have not run are omitted. Text of models and data sets is escaped, with
    invisible characters spelt out. The page loads nothing external, runs only its own script, and
    is readable without it.

    Raises:
        CheckpointError: If there is no run folder, or a file in it is damaged.
    """
    return of(read_run(root))


def of(facts: RunFacts) -> str:
    """Return the page of a run that has been read."""
    return write("report.html.j2", _view(facts))


def _view(facts: RunFacts) -> dict[str, Any]:
    """Return the variables of the page's template."""
    records = list(facts.records.values())
    return {
        "name": facts.name,
        "kind": "RLHF report",
        "verdict": verdict.verdict_of(facts),
        "summary": provenance.summary(records),
        "sections": sections(facts),
        "curves": [section for stage in STAGES if (section := _stage_curves(facts, stage)).plots],
        "samples": samples.held_out(facts.samples),
        "training_samples": samples.of_training(facts.training_samples),
        "versions": provenance.versions(records),
        "artifacts": provenance.artifacts(records),
        "all_metrics": provenance.all_metrics(facts),
        "recipe": facts.recipe,
    }


def _stage_curves(facts: RunFacts, stage: Stage) -> StageCurves:
    steps = facts.curves.get(stage.name, [])
    return StageCurves(
        stage.title,
        facts.unit(stage),
        tuple(curves.plots(stage, steps)),
        tuple(curves.extra_plots(stage, steps)),
    )
