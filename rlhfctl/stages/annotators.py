"""The annotators on trial: what the comparisons that carry them say about those who labelled."""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Any

from rlhfctl.data.votes import comparison_votes
from rlhfctl.evaluation.annotators import examine
from rlhfctl.stages.gate import FIGURES_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from rlhfctl.stages.judging import Judging


def annotators(judging: Judging) -> dict[str, Any]:
    """Return `annotators`, over all comparisons; nothing where none says who labelled it.

    Raises:
        DataError: No usable comparisons.
    """
    recipe = judging.recipe
    split = judging.comparisons
    votes = comparison_votes(chain(split.train, split.held_out), recipe.data.comparisons.source)
    if not votes.annotators and votes.most_labels < 2:
        return {}
    trained = _trained(judging.inputs.get("rm"))
    figures = examine(votes, recipe.seed, trained)
    for name, known in (trained or {}).get("per_annotator", {}).items():
        if name in figures["per_annotator"]:
            figures["per_annotator"][name]["reward_model"] = known
    for told in (*figures["notes"], *figures["warnings"]):
        judging.monitor.note(f"annotators: {told}")
    return {"annotators": figures}


def _trained(rm: Path | None) -> dict[str, Any] | None:
    """Return what the rm stage kept of the reward model's accuracy; None where nobody judged it."""
    if rm is None or not (rm / FIGURES_FILE).is_file():
        return None
    figures = json.loads((rm / FIGURES_FILE).read_text(encoding="utf-8"))
    return figures if {"accuracy", "accuracy_low"} <= figures.keys() else None
