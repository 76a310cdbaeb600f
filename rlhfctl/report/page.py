"""Report of a run as one self-contained HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.report import first_screen, highlights, provenance, samples, verdict
from rlhfctl.report.html import write
from rlhfctl.report.sections import sections
from rlhfctl.report.sources import read_run

if TYPE_CHECKING:
    from pathlib import Path

    from rlhfctl.report.sources import RunFacts


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
    judgement = verdict.verdict_of(facts)
    parts = sections(facts)
    first = first_screen.of(facts, judgement)
    shown = samples.held_out(facts.samples, facts.policy_name)
    readings = highlights.best_worst_and_tie(facts.samples, facts.policy_name)
    contents = [
        *((("cautions", "Cautions"),) if judgement.cautions else ()),
        *((("three-samples", "Three samples"),) if readings else ()),
        *((part.anchor, part.title) for part in parts),
        *((("samples", "All samples"),) if shown else ()),
        ("provenance", "Provenance"),
    ]
    return {
        "name": facts.name,
        "kind": "RLHF report",
        "first": first,
        "highlights": readings,
        "summary": provenance.summary(records),
        "contents": contents,
        "sections": parts,
        "samples": shown,
        "policy": facts.policy_name,
        "training_samples": samples.of_training(facts.training_samples),
        "versions": provenance.versions(records),
        "artifacts": provenance.artifacts(records),
        "repositories": provenance.repositories(records),
        "all_metrics": provenance.all_metrics(facts),
        "recipe": facts.recipe,
    }
