"""The evaluation's part on drift: how far PPO's way of writing has moved from SFT's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.evaluation.drift import drift

if TYPE_CHECKING:
    from rlhfctl.stages.evaluation.context import EvalContext


def judge_drift(context: EvalContext) -> dict[str, Any]:
    """Return `drift`: of each policy how it writes, and the phrases that PPO grew."""
    recipe = context.recipe
    return {"drift": drift(context.policies, recipe.evaluation.ngram, recipe.seed)}
