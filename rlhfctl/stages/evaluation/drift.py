"""Drift metrics of an evaluation: style of the policies' responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.evaluation.drift import drift

if TYPE_CHECKING:
    from rlhfctl.results.evaluation import Drift
    from rlhfctl.stages.evaluation.context import EvalContext


def evaluate_drift(context: EvalContext) -> Drift:
    """Return the style of each policy, and the phrases that grew under PPO."""
    recipe = context.recipe
    return drift(context.policies, recipe.evaluation.ngram, recipe.seed)
