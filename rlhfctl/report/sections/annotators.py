"""Annotator agreement, reliability and the resulting ceiling on reward model accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.report.blocks import (
    Cell,
    Column,
    estimate_cell,
    estimate_cells,
    notes,
    table,
    warnings,
)
from rlhfctl.report.numbers import number, share

if TYPE_CHECKING:
    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.evaluation import AnnotatorsResult


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return notes and warnings, the overall metrics, and the metrics per annotator."""
    result = facts.evaluation.annotators if facts.evaluation else None
    if result is None:
        return ()
    overall = table(
        "Agreement of two annotators on the same comparison; Krippendorff's alpha is 0 at chance "
        "and 1 at full agreement.",
        (Column("Metric"), Column("Value", "number"), Column("95 % CI", "number")),
        _overall(result),
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
                share(one.accuracy),
                "" if one.agreement is None else share(one.agreement),
                estimate_cell(one.reward_model.accuracy, share) if one.reward_model else None,
                number(one.labels),
            )
            for name, one in sorted(result.per_annotator.items())
        ],
    )
    kappas = table(
        "Cohen's kappa of two annotators on the comparisons that both labelled.",
        (
            *(Column("Annotator"), Column("Other annotator")),
            *(Column("Kappa", "number"), Column("95 % CI", "number")),
            Column("Comparisons", "number"),
        ),
        [
            (one.first, one.second, *estimate_cells(one.kappa), number(one.items))
            for one in result.cohen or ()
        ],
    )
    return (*notes(result.notes), *warnings(result.warnings), *overall, *per_annotator, *kappas)


def _overall(result: AnnotatorsResult) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = [
        (label, *estimate_cells(estimate, share))
        for label, estimate in (
            ("Agreement", result.agreement),
            ("Krippendorff's alpha", result.alpha),
            ("Fleiss's kappa", result.fleiss),
        )
        if estimate is not None
    ]
    if result.intransitive is not None:
        rows.append(("Intransitive triples", share(result.intransitive.share.value), ""))
        if result.intransitive.expected is not None:
            expected = share(result.intransitive.expected)
            rows.append(("Intransitive triples expected from noise", expected, ""))
        rows.append(("Triples", number(result.intransitive.triples), ""))
    if result.ceiling is not None:
        accuracy = share(result.ceiling.accuracy.value)
        rows.append(("Reward model accuracy ceiling", accuracy, ""))
    if result.majority is not None:
        for label, items in result.majority.labels.items():
            rows.append((f"Comparisons with majority {label}", number(items), ""))
        rows.append(("Comparisons without a majority", number(result.majority.none), ""))
    rows.append(("Comparisons", number(result.items), ""))
    rows.append(("Labels", number(result.labels), ""))
    return rows
