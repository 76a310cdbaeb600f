"""Over-optimisation: gain against distance (Gao et al. 2023), best evaluation, fall since the best.

Distance is ``d = sqrt(KL)``, with KL to the initial policy in nats per response. The gain R is
the mean score minus that of the first evaluation, where d = 0. Gao et al. 2023 ("Scaling laws
for reward model overoptimization", section 3.1) find ``R = d (alpha - beta ln d)`` under RL and
``R = d (alpha - beta d)`` for best-of-n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import special

from rlhfctl.evaluation.changes import best_by_other_half, p_value_of_fall, per_prompt
from rlhfctl.evaluation.intervals import Interval, paired_bootstrap_mean
from rlhfctl.results.training import OverOptimisationFit, Peak

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from rlhfctl.results.training import HeldOutLine

Form = Literal["rl", "best_of_n"]

LEAST_DISTANCE = 0.3  # the RL form has an infinite slope at 0, unlike any policy
LEAST_POINTS = 4
FALL_LEVEL = 0.005  # one-sided, at each of two consecutive evaluations

_CURVE_POINTS = 50
_LEAST_DETERMINANT = 1e-10  # of the normal equations, as a share of their diagonal


@dataclass(frozen=True)
class Coefficients:
    """A fitted curve of gain against distance."""

    form: Form
    alpha: float
    beta: float
    r_squared: float | None

    def gain(self, distances: ArrayLike) -> NDArray[np.float64]:
        """Return R(d), 0 at d = 0."""
        d = np.asarray(distances, dtype=np.float64)
        return self.alpha * d - self.beta * _bend(d, self.form)

    def peak(self) -> tuple[float, float] | None:
        """Return distance and gain at the curve's maximum; None without a maximum."""
        distance, value = (
            float(x[0]) for x in _peaks(np.array([self.alpha]), np.array([self.beta]), self.form)
        )
        return (distance, value) if math.isfinite(distance) else None


def fit(distances: ArrayLike, values: ArrayLike, form: Form) -> Coefficients | None:
    """Fit gain against distance by ordinary least squares.

    The fit is linear in alpha and beta, and equals the regression of R/d on ln d (or d) with
    weights d^2. Points below `LEAST_DISTANCE` are left out under RL, points at 0 for best-of-n.

    Args:
        distances: [points] sqrt(KL).
        values: [points] gains over the initial policy.
        form: The curve's form.

    Returns:
        None with fewer than four usable points, or if alpha and beta are not identifiable.

    Raises:
        ValueError: If the two differ in length or a number is not finite.
    """
    d, gains = (np.asarray(x, dtype=np.float64) for x in (distances, values))
    if d.ndim != 1 or d.shape != gains.shape:
        raise ValueError(f"a fit needs two equally long vectors, not {d.shape} and {gains.shape}")
    if not (np.isfinite(d).all() and np.isfinite(gains).all()):
        raise ValueError("a fit needs finite distances and gains")
    usable = _usable(d, form)
    d, gains = d[usable], gains[usable]
    if len(d) < LEAST_POINTS:
        return None
    alpha, beta = (float(x[0]) for x in _solve(d[None], gains[None], form))
    if not math.isfinite(beta):
        return None
    unfitted = Coefficients(form, alpha, beta, r_squared=None)
    total = float(((gains - gains.mean()) ** 2).sum())
    left = float(((gains - unfitted.gain(d)) ** 2).sum())
    return Coefficients(form, alpha, beta, 1 - left / total if total > 0 else None)


def fit_history(
    history: Sequence[HeldOutLine],
    key: str,
    seed: int = 0,
    form: Form = "rl",
    resamples: int = 2000,
) -> OverOptimisationFit | None:
    """Fit a run's gains against its distances, with bootstrap intervals over prompts.

    All evaluations of a prompt, gains and distances, are resampled jointly. The percentile
    intervals do not cover the variance between training runs.

    The peak is None unless the interval of its distance is finite: if more than 2.5 % of the
    resamples have no maximum, the peak is not identifiable.

    Args:
        history: Lines of `held_out.jsonl`, starting with PPO's initial policy.
        key: `proxy` or `true_reward`.
        seed: Seed of the bootstrap.
        form: The curve's form.
        resamples: Number of bootstrap resamples.

    Returns:
        None if nothing can be fitted (see `fit`), the metric is missing, or there is only one
        prompt.

    Raises:
        ValueError: If the evaluations differ in their number of prompts.
    """
    scores, kl = per_prompt(history, key), per_prompt(history, "kl")
    if scores is None or kl is None or scores.shape[1] < 2:
        return None
    gains = (scores - scores[0])[1:]
    kl = kl[1:]
    d = _distance(kl.mean(axis=1))
    fitted = fit(d, gains.mean(axis=1), form)
    if fitted is None:
        return None
    usable = _usable(d, form)
    prompts = gains.shape[1]
    drawn = np.random.default_rng(seed).multinomial(
        prompts, np.full(prompts, 1 / prompts), size=resamples
    )
    alphas, betas = _solve(
        _distance(drawn @ kl[usable].T / prompts), drawn @ gains[usable].T / prompts, form
    )
    identifiable = np.isfinite(betas)
    alphas, betas = alphas[identifiable], betas[identifiable]
    curve = np.linspace(0, d.max(), _CURVE_POINTS)
    return OverOptimisationFit(
        form=form,
        alpha=_percentiles(fitted.alpha, alphas),
        beta=_percentiles(fitted.beta, betas),
        peak=_peak_between(fitted, alphas, betas, d[usable]),
        r_squared=fitted.r_squared,
        curve=[[float(x), float(y)] for x, y in zip(curve, fitted.gain(curve), strict=True)],
        baseline=float(scores[0].mean()),
        points=int(usable.sum()),
    )


def best_evaluation(history: Sequence[HeldOutLine]) -> int:
    """Return the index of the evaluation with the highest mean true reward; the earliest at ties.

    Raises:
        ValueError: If there is no evaluation, or one has no true reward.
    """
    return int(_true_reward(history).mean(axis=1).argmax())


def fallen_significantly(history: Sequence[HeldOutLine], best: int, seed: int = 0) -> Interval:
    """Return the true reward's mean change from evaluation `best` to the last, 95 % over prompts.

    For display, not for early stopping: the best of many evaluations is partly chosen by noise, so
    without any change the interval often lies below 0. `falls` corrects for that selection.

    Raises:
        ValueError: If an evaluation has no true reward, or there are fewer than two prompts.
    """
    values = _true_reward(history)
    return paired_bootstrap_mean(values[-1] - values[best], seed)


def falls(history: Sequence[HeldOutLine]) -> bool:
    """Return True if the true reward has fallen significantly below its best.

    Two sources of false positives are controlled:

    1. Selection of the best evaluation: each half of the prompts chooses the evaluation that the
       other half compares with the last (`best_by_other_half`).
    2. Repeated testing: the fall must be significant (99 % CI below 0, Student's t) at two
       consecutive evaluations.

    Raises:
        ValueError: If an evaluation has no true reward.
    """
    return fallen(_true_reward(history))


def fallen(values: NDArray[np.float64]) -> bool:
    """Apply the test of `falls` to [evaluations, prompts] values of the true reward."""
    if len(values) < 3:
        return False
    return values.shape[1] >= 4 and all(
        p_value_of_fall(since_best(values[:count])) < FALL_LEVEL
        for count in (len(values), len(values) - 1)
    )


def since_best(
    values: NDArray[np.float64], chosen_by: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return [prompts] the last evaluation's values minus those of the best so far.

    Args:
        values: [evaluations, prompts] metric to compare.
        chosen_by: [evaluations, prompts] metric that selects the best evaluation; `values` if None.
            Each half of the prompts uses the best of the other half.
    """
    best = best_by_other_half(values if chosen_by is None else chosen_by)
    change: NDArray[np.float64] = values[-1] - values[best, np.arange(values.shape[1])]
    return change


def _true_reward(history: Sequence[HeldOutLine]) -> NDArray[np.float64]:
    values = per_prompt(history, "true_reward")
    if values is None:
        raise ValueError("the best evaluation needs a true reward")
    return values


def _distance(kl: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sqrt(KL); a sampled KL estimate below 0 counts as 0."""
    return np.sqrt(np.maximum(kl, 0.0))


def _usable(d: NDArray[np.float64], form: Form) -> NDArray[np.bool_]:
    return d >= LEAST_DISTANCE if form == "rl" else d > 0


def _bend(d: NDArray[np.float64], form: Form) -> NDArray[np.float64]:
    """Return the regressor of beta: d ln d or d^2."""
    bent: NDArray[np.float64] = special.xlogy(d, d) if form == "rl" else d * d
    return bent


def _solve(
    d: NDArray[np.float64], gains: NDArray[np.float64], form: Form
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return alpha and beta [fits] of [fits, points]; NaN where they are not identifiable."""
    bend = _bend(d, form)
    dd, db, bb = ((x * y).sum(axis=1) for x, y in ((d, d), (d, bend), (bend, bend)))
    dr, br = (d * gains).sum(axis=1), (bend * gains).sum(axis=1)
    determinant = dd * bb - db * db
    identifiable = determinant > _LEAST_DETERMINANT * dd * bb
    divisor = np.where(identifiable, determinant, np.nan)
    return (bb * dr - db * br) / divisor, (db * dr - dd * br) / divisor


def _peaks(
    alpha: NDArray[np.float64], beta: NDArray[np.float64], form: Form
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return distances and gains [fits] of the peaks; infinite for a curve without one."""
    bends_down = beta > 0 if form == "rl" else (beta > 0) & (alpha > 0)
    divisor = np.where(bends_down, beta, 1.0)
    with np.errstate(over="ignore"):
        if form == "rl":
            distance = np.exp(alpha / divisor - 1)
            value = beta * distance
        else:
            distance = alpha / (2 * divisor)
            value = alpha * distance / 2
    return np.where(bends_down, distance, np.inf), np.where(bends_down, value, np.inf)


def _peak_between(
    fitted: Coefficients,
    alphas: NDArray[np.float64],
    betas: NDArray[np.float64],
    observed: NDArray[np.float64],
) -> Peak | None:
    peak = fitted.peak()
    if peak is None:
        return None
    distances, values = _peaks(alphas, betas, fitted.form)
    distance, value = _percentiles(peak[0], distances), _percentiles(peak[1], values)
    if not (math.isfinite(distance.high) and math.isfinite(value.high)):
        return None
    return Peak(distance, value, bool(observed.min() <= peak[0] <= observed.max()))


def _percentiles(estimate: float, resampled: NDArray[np.float64]) -> Interval:
    # Order statistics without interpolation, since a neighbour may be infinite.
    low, high = np.quantile(resampled, [0.025, 0.975], method="inverted_cdf")
    return Interval(estimate, float(low), float(high))
