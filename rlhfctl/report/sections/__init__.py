"""Sections of a report, in order; a section without metrics is omitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.report.blocks import Section
from rlhfctl.report.sections import (
    annotators,
    best_of_n,
    drift,
    evaluation,
    judges,
    overoptimisation,
    reward_model,
    stages,
    tax,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts

_PARTS: tuple[tuple[str, Callable[[RunFacts], tuple[Block, ...]]], ...] = (
    ("Stages", stages.blocks),
    ("Evaluation", evaluation.blocks),
    ("Judges", judges.blocks),
    ("Over-optimisation", overoptimisation.blocks),
    ("Best of n", best_of_n.blocks),
    ("Alignment tax", tax.blocks),
    ("Drift", drift.blocks),
    ("Reward model", reward_model.blocks),
    ("Annotators", annotators.blocks),
)


def sections(facts: RunFacts) -> list[Section]:
    """Return the sections that are not empty."""
    parts = ((title, part(facts)) for title, part in _PARTS)
    return [Section(title, blocks) for title, blocks in parts if blocks]
