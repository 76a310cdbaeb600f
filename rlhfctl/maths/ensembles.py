"""One score from several sources: a weighted sum, or an ensemble's rule."""

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
    """Return one score a response, [B], from those of S sources.

    Mean, worst case and uncertainty-weighted are those of Coste et al. 2024, section 3.2; the last
    is mean - penalty * variance (equation 5), the variance divided by S - 1 as in their code. They
    are meant for members of one scale. A single source has variance 0.

    Args:
        scores: [S, B], normalised.
        weights: S numbers, read by `weighted_sum` alone.
        rule: How to combine.
        penalty: Price of the variance, read by `uncertainty` alone.

    Raises:
        ValueError: No source, weights of another number than the sources, or no such rule.
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
