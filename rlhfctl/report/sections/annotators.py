"""How far the annotators agree, how reliable each is, and what that leaves a reward model to learn."""

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
    """Return notes and warnings, the metrics of all annotators, and each one's."""
    found = facts.evaluation.get("annotators")
    if not isinstance(found, dict):
        return ()
    overall = table(
        "Agreement of two annotators on the same comparison; Krippendorff's alpha is 0 at chance "
        "and 1 at full agreement.",
        (Column("Figure"), Column("Value", "number"), Column("95 % interval", "number")),
        _overall(found),
    )
    each = table(
        "Accuracy: how often each is right, by Dawid and Skene's model of who errs how often. "
        "Agreement: with the others. Reward model: how often it agrees with the annotator.",
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
            for name, one in sorted(objects(found.get("per_annotator")).items())
        ],
    )
    return (
        *notes(found.get("notes")),
        *warnings(found.get("warnings")),
        *overall,
        *each,
    )


def _overall(found: Mapping[str, Any]) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = [
        (label, *estimate_cells(found, name, share))
        for label, name in (("Agreement", "agreement"), ("Krippendorff's alpha", "alpha"))
        if finite(found.get(name)) is not None
    ]
    of = objects(found)
    triples, ceiling = of.get("intransitive", {}), of.get("ceiling", {})
    for label, source, name, write in (
        ("Intransitive triples", triples, "share", share),
        ("Intransitive triples that noise alone gives", triples, "expected", share),
        ("Triples", triples, "triples", number),
        ("Highest accuracy a reward model can have", ceiling, "accuracy", share),
        ("Comparisons", found, "items", number),
        ("Labels", found, "labels", number),
    ):
        if finite(source.get(name)) is not None:
            rows.append((label, write(source[name]), ""))
    return rows
