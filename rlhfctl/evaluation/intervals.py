"""Confidence intervals of proportions and paired differences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from rlhfctl.results.estimate import Estimate

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_ROUNDING = 1e-12  # of the largest deviation from the mean
_RESAMPLED_VALUES_AT_ONCE = 4_000_000  # 32 MB of doubles


@dataclass(frozen=True)
class Interval(Estimate):
    """An estimate with a confidence interval."""

    low: float
    high: float

    def metrics(self, name: str) -> dict[str, float]:
        """Return ``{name: estimate, name_low: low, name_high: high}``."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def wilson(successes: float, trials: int, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927, equation 4).

    Args:
        successes: Number of successes; a tie counts one half.
        trials: Number of trials.
        confidence: Coverage of the interval.

    Raises:
        ValueError: If there are no trials, or successes do not lie between 0 and trials.
    """
    if trials < 1:
        raise ValueError("a proportion needs at least one trial")
    if not 0 <= successes <= trials:
        raise ValueError(f"successes ({successes}) must lie between 0 and trials ({trials})")
    share = successes / trials
    z = float(stats.norm.ppf((1 + confidence) / 2))
    z2_n = z * z / trials
    centre = share + z2_n / 2
    half = z * math.sqrt(share * (1 - share) / trials + z2_n / (4 * trials))
    # At 0 and at 1 the bound is exactly the proportion; avoid its rounding error.
    low = 0.0 if successes == 0 else (centre - half) / (1 + z2_n)
    high = 1.0 if successes == trials else (centre + half) / (1 + z2_n)
    return Interval(share, low, high)


def paired_bootstrap_mean(
    differences: ArrayLike, seed: int, resamples: int = 10_000, confidence: float = 0.95
) -> Interval:
    """Bootstrap interval of a mean over prompts, bias-corrected and accelerated (Efron 1987).

    Args:
        differences: [prompts] one value per prompt, such as PPO's score minus SFT's.
        seed: Seed of the bootstrap; the same seed gives the same interval.
        resamples: Number of bootstrap resamples.
        confidence: Coverage of the interval.

    Raises:
        ValueError: If there are fewer than two values, or one is not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError("a bootstrap needs at least two values in one dimension")
    if not np.isfinite(values).all():
        raise ValueError("a bootstrap needs finite values")
    mean = float(values.mean())
    centred = values - mean
    scale = float(np.abs(centred).max())
    if scale == 0 or np.ptp(values) == 0:
        # All resamples are equal: the BCa correction would divide 0 by 0.
        return Interval(mean, mean, mean)
    # The interval is equivariant under shift and scale. Rescale so that the correction's cubes
    # neither underflow nor overflow.
    result = stats.bootstrap(
        (centred / scale,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _RESAMPLED_VALUES_AT_ONCE // len(values)),
        confidence_level=confidence,
        vectorized=True,
        method="BCa",
        rng=np.random.default_rng(seed),
    )
    ends = (mean + scale * float(end) for end in result.confidence_interval)
    # Round bounds within rounding error of 0 to exactly 0.
    low, high = (0.0 if abs(end) < _ROUNDING * scale else end for end in ends)
    return Interval(mean, low, high)


def mean_estimate(values: ArrayLike, seed: int) -> Estimate:
    """Return a mean with its bootstrap interval; without an interval for fewer than two values.

    Args:
        values: [prompts] values, one per prompt.
        seed: Seed of the bootstrap.
    """
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return Estimate(float(array.mean()))
    return paired_bootstrap_mean(array, seed)
