"""Mahalanobis distance of a reward model's states to those of SFT's responses.

Hacked responses are outliers among the states that a score head reads (Miao et al. 2025, InfoRM,
arXiv 2510.13694), even where the score itself is not unusual. The covariance is shrunk to a multiple
of the identity (Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
matrices", lemma 3.3), since there are fewer responses than dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDS = 4


@dataclass(frozen=True)
class StateDistribution:
    """Mean and shrunk covariance of states, as principal axes.

    Attributes:
        mean: [H].
        axes: [rank, H] orthonormal directions in which the states vary.
        variances: [rank] shrunk variances along the axes.
        rest: Shrunk variance in every other direction.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    variances: NDArray[np.float64]
    rest: float

    @classmethod
    def of(cls, states: NDArray[np.float64]) -> StateDistribution:
        """Estimate from states [n, H]; costs n^2 H."""
        mean = states.mean(axis=0)
        centred = states - mean
        count, width = centred.shape
        _, singular, axes = np.linalg.svd(centred, full_matrices=False)
        eigenvalues = singular**2 / count
        average = float(eigenvalues.sum()) / width
        squares = float((eigenvalues**2).sum())
        # Squared distance of the sample covariance from the target, and the part that is noise.
        spread = squares - width * average**2
        fourth = float((np.square(centred).sum(axis=1) ** 2).sum())
        noise = (fourth / count - squares) / count
        shrinkage = min(1.0, max(0.0, noise / spread)) if spread > 0 else 1.0
        # At least what rounding alone would give in single precision, so that states which hardly
        # vary, or in few directions, still have finite distances.
        rounding = float(np.square(states).mean() * np.finfo(np.float32).eps ** 2)
        rest = max(shrinkage * average, rounding, float(np.finfo(np.float32).tiny))
        return cls(mean, axes, (1.0 - shrinkage) * eigenvalues + rest, rest)

    def distances(self, states: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the Mahalanobis distance of each of the states [n, H], divided by sqrt(H)."""
        centred = states - self.mean
        along = centred @ self.axes.T
        outside = np.square(centred).sum(axis=1) - np.square(along).sum(axis=1)
        total = (np.square(along) / self.variances).sum(axis=1)
        total += np.maximum(outside, 0.0) / self.rest
        distances: NDArray[np.float64] = np.sqrt(total / states.shape[1])
        return distances


def held_out_distances(
    reference: NDArray[np.float64], states: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance of each prompt's state to SFT's states on the other prompts, [prompts].

    The distribution that a prompt's response is compared with is estimated without that prompt, in
    `FOLDS` parts. So SFT's own states have distances like those of new responses of SFT, and
    distances of later policies can be compared with them, paired by prompt.

    Args:
        reference: [prompts, H] states of SFT's responses.
        states: [prompts, H] states of another policy's responses to the same prompts.
    """
    distances = np.zeros(len(states))
    folds = np.arange(len(states)) % min(FOLDS, len(states))
    for fold in range(int(folds.max()) + 1):
        own = folds == fold
        distances[own] = StateDistribution.of(reference[~own]).distances(states[own])
    return distances
