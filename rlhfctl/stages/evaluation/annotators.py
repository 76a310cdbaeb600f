"""The annotators on trial: what the comparisons that carry them say about those who labelled."""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Any

from rlhfctl.data.annotations import comparison_votes
from rlhfctl.evaluation.annotator_quality import examine
from rlhfctl.run.directory import METRICS_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from rlhfctl.stages.evaluation.context import EvalContext


def annotators(context: EvalContext) -> dict[str, Any]:
    """Return `annotators`, over all comparisons; nothing where none says who labelled it.

    Raises:
        DataError: No usable comparisons.
    """
    recipe = context.recipe
    split = context.comparisons
    votes = comparison_votes(chain(split.train, split.held_out), recipe.data.comparisons.source)
    if not votes.annotators and votes.most_labels < 2:
        return {}
    trained = _trained(context.inputs.get("rm"))
    metrics = examine(votes, recipe.seed, trained)
    for name, known in (trained or {}).get("per_annotator", {}).items():
        if name in metrics["per_annotator"]:
            metrics["per_annotator"][name]["reward_model"] = known
    for told in (*metrics["notes"], *metrics["warnings"]):
        context.monitor.note(f"annotators: {told}")
    return {"annotators": metrics}


def _trained(rm: Path | None) -> dict[str, Any] | None:
    """Return what the rm stage kept of the reward model's accuracy; None where nobody judged it."""
    if rm is None or not (rm / METRICS_FILE).is_file():
        return None
    metrics = json.loads((rm / METRICS_FILE).read_text(encoding="utf-8"))
    return metrics if {"accuracy", "accuracy_low"} <= metrics.keys() else None
