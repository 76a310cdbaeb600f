"""Sections of a report, in order; a section without metrics is omitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.report.blocks import Section
from rlhfctl.report.sections import (
    annotators,
    best_of_n,
    cost,
    drift,
    evaluation,
    glance,
    judges,
    overoptimisation,
    reward_model,
    stages,
    tax,
    training_curves,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts

_PARTS: tuple[tuple[str, Callable[[RunFacts], tuple[Block, ...]]], ...] = (
    ("Run at a glance", glance.blocks),
    ("Evaluation", evaluation.blocks),
    ("Judges", judges.blocks),
    ("Reward model", reward_model.blocks),
    ("Over-optimisation", overoptimisation.blocks),
    ("Best of n", best_of_n.blocks),
    ("Alignment tax", tax.blocks),
    ("Stages", stages.blocks),
    ("Curves", training_curves.blocks),
    ("Cost", cost.blocks),
    ("Drift", drift.blocks),
    ("Annotators", annotators.blocks),
)


def sections(facts: RunFacts) -> list[Section]:
    """Return the sections that are not empty."""
    parts = ((title, part(facts)) for title, part in _PARTS)
    return [Section(title, blocks) for title, blocks in parts if blocks]
