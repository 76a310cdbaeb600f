"""Annotator agreement, reliability and the resulting ceiling on reward model accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.report.blocks import (
    Cell,
    Column,
    estimate,
    estimate_cells,
    group,
    notes,
    objects,
    table,
    warnings,
)
from rlhfctl.report.numbers import finite, number, share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return notes and warnings, the overall metrics, and the metrics per annotator."""
    metrics = facts.evaluation.get("annotators")
    if not isinstance(metrics, dict):
        return ()
    overall = table(
        "Agreement of two annotators on the same comparison; Krippendorff's alpha is 0 at chance "
        "and 1 at full agreement.",
        (Column("Metric"), Column("Value", "number"), Column("95 % CI", "number")),
        _overall(metrics),
    )
    per_annotator = table(
        "Accuracy: estimated by the Dawid-Skene model. Agreement: with the other annotators. "
        "Reward model: its agreement with the annotator.",
        (
            Column("Annotator"),
            Column("Accuracy", "number"),
            Column("Agreement", "number"),
            Column("Reward model", "number"),
            Column("Labels", "number"),
        ),
        [
            (
                name,
                share(one.get("accuracy")),
                share(one["agreement"]) if "agreement" in one else "",
                estimate(group(objects(one).get("reward_model", {})), "accuracy", share),
                number(one.get("labels")),
            )
            for name, one in sorted(objects(metrics.get("per_annotator")).items())
        ],
    )
    return (
        *notes(metrics.get("notes")),
        *warnings(metrics.get("warnings")),
        *overall,
        *per_annotator,
    )


def _overall(metrics: Mapping[str, Any]) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = [
        (label, *estimate_cells(metrics, name, share))
        for label, name in (("Agreement", "agreement"), ("Krippendorff's alpha", "alpha"))
        if finite(metrics.get(name)) is not None
    ]
    parts = objects(metrics)
    triples, ceiling = parts.get("intransitive", {}), parts.get("ceiling", {})
    for label, source, name, write in (
        ("Intransitive triples", triples, "share", share),
        ("Intransitive triples expected from noise", triples, "expected", share),
        ("Triples", triples, "triples", number),
        ("Reward model accuracy ceiling", ceiling, "accuracy", share),
        ("Comparisons", metrics, "items", number),
        ("Labels", metrics, "labels", number),
    ):
        if finite(source.get(name)) is not None:
            rows.append((label, write(source[name]), ""))
    return rows
