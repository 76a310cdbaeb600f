"""Combination of scores from several sources: weighted sum or ensemble rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Rule = Literal["weighted_sum", "mean", "worst", "uncertainty"]


def combine_scores(
    scores: Tensor, weights: Sequence[float], rule: Rule, penalty: float = 0.0
) -> Tensor:
    """Return one score per response, [B], from those of S sources.

    `mean`, `worst` and `uncertainty` follow Coste et al. 2024, section 3.2; the last is
    mean - penalty * variance (equation 5), with S - 1 in the variance's denominator as in their
    code. They assume sources on one scale. A single source has variance 0.

    Args:
        scores: [S, B], normalised.
        weights: [S], used by `weighted_sum` only.
        rule: Combination rule.
        penalty: Coefficient of the variance, used by `uncertainty` only.

    Raises:
        ValueError: No sources, a wrong number of weights, or an unknown rule.
    """
    if scores.shape[0] == 0:
        raise ValueError("there is no source of scores")
    match rule:
        case "weighted_sum":
            if len(weights) != scores.shape[0]:
                raise ValueError(f"{scores.shape[0]} sources, but {len(weights)} weights")
            column = torch.tensor(list(weights), dtype=scores.dtype, device=scores.device)
            return (column[:, None] * scores).sum(dim=0)
        case "mean":
            return scores.mean(dim=0)
        case "worst":
            return scores.min(dim=0).values
        case "uncertainty":
            variance = (
                scores.var(dim=0, correction=1) if len(scores) > 1 else torch.zeros_like(scores[0])
            )
            return scores.mean(dim=0) - penalty * variance
    raise ValueError(f"no rule {rule!r}; there are {', '.join(get_args(Rule))}")
