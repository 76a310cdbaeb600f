"""SFT responses that give the scale of scores: those that ended, as PPO replaces other scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rlhfctl.recipe.schema import Recipe

_MOST_RESPONSES = 4
"""Responses sampled at most, per calibration sample."""
_FEWEST_ENDED = 32
"""Ended responses whose deviation is a scale: its relative standard error is then 13 %."""
SAME_SCORE = 1e-6
"""Deviation below which a model gives all responses the same score."""
REMEDY = "Raise generation.max_new_tokens, or train SFT longer"


def responses_needed(ended: Sequence[bool], requested: int) -> int:
    """Return how many more responses to sample, at the share of ended ones so far; 0: no more.

    Args:
        ended: [responses] whether each response so far ended.
        requested: Ended responses to collect, over at most `_MOST_RESPONSES` times as many.
    """
    left = _MOST_RESPONSES * requested - len(ended)
    if sum(ended) >= requested or left <= 0:
        return 0
    if len(ended) < requested:
        return requested - len(ended)
    return min(left, math.ceil((requested - sum(ended)) * len(ended) / max(1, sum(ended))))


def responses_used(ended: Sequence[bool], recipe: Recipe) -> tuple[NDArray[np.bool_], str | None]:
    """Return which responses give the scale, [responses], and a warning if too few ended.

    They are those that ended; all of them where fewer than `_FEWEST_ENDED` did.

    Args:
        ended: [responses] whether each sampled response ended.
        recipe: Number of calibration samples.
    """
    flags = np.asarray(ended, dtype=bool)
    count, requested = int(flags.sum()), recipe.reward_model.calibration_samples
    if count >= requested:
        return flags, None
    seldom = ended_of(flags, recipe)
    if count >= _FEWEST_ENDED:
        return flags, (
            f"{seldom}: the scale of scores is that of these {count:,}, fewer than "
            f"reward_model.calibration_samples ({requested:,}). {REMEDY}"
        )
    return np.ones_like(flags), (
        f"{seldom}, too few for a scale of scores, which is that of all {len(flags):,} "
        f"responses instead. {REMEDY}"
    )


def ended_of(ended: Sequence[bool] | NDArray[np.bool_], recipe: Recipe) -> str:
    """Return the number of responses that ended, for a message."""
    return (
        f"only {int(np.sum(ended)):,} of {len(ended):,} sampled SFT responses ended within "
        f"generation.max_new_tokens ({recipe.generation.max_new_tokens:,})"
    )
