"""The report: one HTML page that needs nothing but itself."""

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
    """The curves of one stage; `extra` are those of metrics that few people watch."""

    title: str
    unit: str
    plots: tuple[curves.Plot, ...]
    extra: tuple[curves.Plot, ...]


def render(root: Path) -> str:
    """Return the report on a run folder as one self-contained HTML page.

    It shows whatever is there: a stage that has not run leaves its section out. Text of models
    and data sets is escaped, its unseen characters spelt out, and the page asks for nothing from
    outside and runs no script but its own, without which everything can still be read.

    Raises:
        CheckpointError: If there is no run folder, or a file in it is damaged.
    """
    return of(read_run(root))


def of(facts: RunFacts) -> str:
    """Return the page of a run that has been read."""
    return write("report.html.j2", _view(facts))


def _view(facts: RunFacts) -> dict[str, Any]:
    """Return what the page's template shows of a run."""
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
