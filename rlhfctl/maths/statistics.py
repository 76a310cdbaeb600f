"""Explained variance and running moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.maths.masking import masked_variance

if TYPE_CHECKING:
    from torch import Tensor


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Return 1 - var(returns - values) / var(returns) over the mask; 1 for perfect values.

    Returns without variance give 0 rather than NaN.
    """
    total = masked_variance(returns, mask)
    if float(total) == 0.0:
        return 0.0
    return float(1.0 - masked_variance(returns - values, mask) / total)


@dataclass(frozen=True)
class RunningMoments:
    """Count, mean and sum of squared deviations of all scores so far (Chan et al. 1983)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def update(self, scores: Tensor) -> RunningMoments:
        """Return the moments updated with `scores` [n]."""
        n = scores.numel()
        if n == 0:
            return self
        mean = float(scores.double().mean())
        squares = float((scores.double() - mean).square().sum())
        count = self.count + n
        delta = mean - self.mean
        return RunningMoments(
            count,
            self.mean + delta * n / count,
            self.squares + squares + delta * delta * self.count * n / count,
        )

    @property
    def deviation(self) -> float:
        """Biased standard deviation; 1 if the variance is 0 or there are fewer than two scores."""
        if self.count < 2 or self.squares == 0.0:
            return 1.0
        return float((self.squares / self.count) ** 0.5)
