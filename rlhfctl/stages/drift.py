"""The evaluation's part on drift: how far PPO's way of writing has moved from SFT's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.evaluation.drift import drift

if TYPE_CHECKING:
    from rlhfctl.stages.judging import Judging


def judge_drift(judging: Judging) -> dict[str, Any]:
    """Return `drift`: of each policy how it writes, and the phrases that PPO grew."""
    recipe = judging.recipe
    return {"drift": drift(judging.policies, recipe.evaluation.ngram, recipe.seed)}
