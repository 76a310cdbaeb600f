"""Annotator metrics over the recipe's comparisons."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from rlhfctl.data.annotations import comparison_votes
from rlhfctl.evaluation.annotator_quality import examine
from rlhfctl.results.io import read_result
from rlhfctl.results.training import RewardModelResult
from rlhfctl.run.directory import METRICS_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from rlhfctl.results.evaluation import AnnotatorsResult
    from rlhfctl.stages.evaluation.context import EvalContext


def annotators(context: EvalContext) -> AnnotatorsResult | None:
    """Return agreement and reliability over all comparisons; None without annotators or repeats.

    Raises:
        DataError: No usable comparisons.
        CheckpointError: The reward model's metrics are malformed.
    """
    recipe = context.recipe
    split = context.comparisons
    votes = comparison_votes(chain(split.train, split.held_out), recipe.data.comparisons.title)
    if not votes.annotators and votes.most_labels < 2:
        return None
    reward_model = _reward_model(context.inputs.get("rm"))
    result = examine(votes, recipe.seed, reward_model.accuracy if reward_model else None)
    groups = (reward_model.per_annotator if reward_model else None) or {}
    per_annotator = {
        name: replace(metrics, reward_model=groups.get(name))
        for name, metrics in result.per_annotator.items()
    }
    for message in (*result.notes, *result.warnings):
        context.monitor.note(f"annotators: {message}")
    return replace(result, per_annotator=per_annotator)


def _reward_model(rm: Path | None) -> RewardModelResult | None:
    """Return the reward model's metrics; None where its checkpoint has none."""
    if rm is None or not (rm / METRICS_FILE).is_file():
        return None
    return read_result(RewardModelResult, rm / METRICS_FILE)
