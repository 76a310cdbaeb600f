"""Length-controlled win rate: the win rate expected at equal response lengths.

The model is logit P(win) = theta + phi tanh((length - other's length) / std), where std is that of
the differences over prompts; the rate is P(win) with the length term at 0. It follows Dubois et al.
2024, "Length-Controlled AlpacaEval", and departs from AlpacaEval 2's LC win rate
(`length_controlled_v1` of its `glm_winrate.py`) in these points:

- It has no term for the difficulty of the instruction, (psi_m - psi_b) gamma_x. The gammas come from
  a joint fit to many models on AlpacaEval's own 805 instructions, and one pair of policies cannot
  identify them for other prompts. Theirs is a mean over instructions of P(win) with that term.
- It has no extra rows of the baseline prompted to be verbose and to be concise, which theirs fits
  together with the model's at a weight of 0.2.
- The penalty is weak and fixed (a normal prior with standard deviation 10), not L1 with a strength
  chosen by five-fold cross-validation: the fit needs no random folds, and swapping the two sides
  gives exactly one minus the rate.
- Outcomes are those of any judge or score, 1, 0.5 or 0 per prompt (or the mean of both orders), not
  the probability of a language model's verdict; the opponent is SFT or the references, not GPT-4.
- The interval bootstraps the whole fit over prompts. AlpacaEval's standard error omits the fit's.

So a rate is comparable with others of rlhfctl on the same prompts, not with the leaderboard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.evaluation.intervals import Interval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2_000
FAR = 0.10
"""Distance from the plain win rate that raises a warning."""
_PRIOR_PRECISION = 0.01
_LONGEST_STEP = 2.0
_STEPS = 100
_SMALL_ENOUGH = 1e-10
_VALUES_AT_ONCE = 2_000_000


def length_controlled_win_rate(
    outcomes: ArrayLike,
    lengths: ArrayLike,
    other_lengths: ArrayLike,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return the rate, with a percentile bootstrap of the whole fit over prompts.

    Args:
        outcomes: [prompts] outcome for the policy, between 0 and 1; a tie is 0.5.
        lengths: [prompts] lengths of its responses, in characters.
        other_lengths: [prompts] lengths of the opponent's responses, in characters.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.

    Raises:
        ValueError: There are no prompts, lengths of arrays differ, or an outcome is not in [0, 1].
    """
    won = np.asarray(outcomes, dtype=np.float64)
    differences = np.asarray(lengths, dtype=np.float64) - np.asarray(other_lengths, np.float64)
    if won.ndim != 1 or not len(won) or won.shape != differences.shape:
        raise ValueError("outcomes and lengths must have one value per prompt")
    if not ((won >= 0) & (won <= 1)).all():
        raise ValueError("outcomes must lie between 0 and 1")
    rng = np.random.default_rng(seed)
    size = len(won)
    estimate = float(_rates(won, differences, np.ones((1, size)))[0])
    step = max(1, _VALUES_AT_ONCE // size)
    drawn = [
        _rates(
            won,
            differences,
            rng.multinomial(size, np.full(size, 1.0 / size), size=min(step, resamples - start)),
        )
        for start in range(0, resamples, step)
    ]
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    return Interval(estimate, float(low), float(high))


def _rates(
    won: NDArray[np.float64], differences: NDArray[np.float64], weights: NDArray[np.generic]
) -> NDArray[np.float64]:
    """Return the rate of each fit, [fits], by Newton's method on all fits at once.

    Args:
        won: [prompts] outcomes.
        differences: [prompts] length differences.
        weights: [fits, prompts] weight of each prompt.
    """
    w = weights.astype(np.float64)
    total = w.sum(axis=1, keepdims=True)
    mean = (w @ differences)[:, None] / total
    std = np.sqrt((w * (differences - mean) ** 2).sum(axis=1, keepdims=True) / total)
    x = np.tanh(np.divide(differences, std, out=np.zeros_like(w), where=std > 0))
    theta, phi = np.zeros(len(w)), np.zeros(len(w))
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-(theta[:, None] + phi[:, None] * x)))
        missing, curvature = w * (won - p), w * p * (1 - p)
        slope_theta = missing.sum(axis=1) - _PRIOR_PRECISION * theta
        slope_phi = (missing * x).sum(axis=1) - _PRIOR_PRECISION * phi
        a = curvature.sum(axis=1) + _PRIOR_PRECISION
        b = (curvature * x).sum(axis=1)
        c = (curvature * x * x).sum(axis=1) + _PRIOR_PRECISION
        determinant = a * c - b * b
        step_theta = (c * slope_theta - b * slope_phi) / determinant
        step_phi = (a * slope_phi - b * slope_theta) / determinant
        # A full Newton step can overshoot far from the optimum, so its length is bounded.
        longest = np.maximum(np.abs(step_theta), np.abs(step_phi))
        scale = np.minimum(1.0, _LONGEST_STEP / np.maximum(longest, _SMALL_ENOUGH))
        theta += scale * step_theta
        phi += scale * step_phi
        if longest.max() < _SMALL_ENOUGH:
            break
    return np.asarray(1.0 / (1.0 + np.exp(-theta)))
