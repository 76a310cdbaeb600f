"""Over-optimisation: gain against distance (Gao et al. 2023), the best evaluation, the fall since.

Distance is ``d = sqrt(KL)``, with KL in nats a response between the policy and its start. The gain
R is the mean score less that of the first evaluation, where d = 0. Gao et al. 2023 ("Scaling laws
for reward model overoptimization", section 3.1) find ``R = d (alpha - beta ln d)`` under RL and
``R = d (alpha - beta d)`` for best-of-n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import special

from rlhfctl.evaluation.changes import best_by_the_others, chance_of_fall, per_prompt
from rlhfctl.evaluation.intervals import Interval, paired_bootstrap_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

Form = Literal["rl", "best_of_n"]

LEAST_DISTANCE = 0.3  # the RL form's slope is infinite at 0, where no policy's is
LEAST_POINTS = 4
FALL_LEVEL = 0.005  # one-sided, at each of two evaluations running

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
        """Return the distance and the gain at the curve's highest point; None where it has none."""
        distance, value = (
            float(x[0]) for x in _peaks(np.array([self.alpha]), np.array([self.beta]), self.form)
        )
        return (distance, value) if math.isfinite(distance) else None


@dataclass(frozen=True)
class Peak:
    """The highest point of a fitted curve; `observed` if the run went as far as its distance."""

    distance: Interval
    value: Interval
    observed: bool


@dataclass(frozen=True)
class Fit:
    """A fitted curve with intervals; peak is None where the metrics do not tell of one.

    Attributes:
        curve: [points, 2] distance and gain from 0 to the farthest evaluation, for drawing.
        baseline: The first evaluation's mean score, which the gains stand above.
        points: Evaluations that the curve was fitted to.
    """

    form: Form
    alpha: Interval
    beta: Interval
    peak: Peak | None
    r_squared: float | None
    curve: list[list[float]]
    baseline: float
    points: int

    def metrics(self) -> dict[str, Any]:
        """Return the fit as metrics are kept."""
        peak = self.peak and {
            **self.peak.distance.metrics("distance"),
            **self.peak.value.metrics("value"),
            "observed": self.peak.observed,
        }
        return {
            "form": self.form,
            **self.alpha.metrics("alpha"),
            **self.beta.metrics("beta"),
            "peak": peak,
            "r_squared": self.r_squared,
            "curve": self.curve,
            "baseline": self.baseline,
            "points": self.points,
        }


def fit(distances: ArrayLike, values: ArrayLike, form: Form) -> Coefficients | None:
    """Fit gain against distance by least squares, every gain with the same weight.

    It is linear in alpha and beta, and the same as R/d regressed on ln d (or on d) with weights
    d^2. Points nearer than `LEAST_DISTANCE` are left out under RL, those at 0 for best-of-n.

    Args:
        distances: [points] sqrt(KL).
        values: [points] gains over the start.
        form: The curve's form.

    Returns:
        None with fewer than four usable points, or where they do not tell alpha from beta.

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
    history: Sequence[Mapping[str, Any]],
    key: str,
    seed: int = 0,
    form: Form = "rl",
    resamples: int = 2000,
) -> Fit | None:
    """Fit a run's gains against its distances, with percentile intervals over the prompts.

    The prompts are drawn again, all evaluations of a prompt together, since they answer the same
    prompts. Distances are drawn again with the gains. What the intervals do not hold is how far
    another training run would have gone.

    The peak is None unless the interval of its distance is finite: where more than 2.5 % of the
    resamples bend the wrong way, the metrics do not tell of a peak.

    Args:
        history: The lines of `held_out.jsonl`, the first of the policy that PPO starts from.
        key: `proxy` or `true_reward`.
        seed: Of the resampling.
        form: The curve's form.
        resamples: How often the prompts are drawn again.

    Returns:
        None where nothing can be fitted (see `fit`), the figure is missing or there is only one
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
    told = np.isfinite(betas)
    alphas, betas = alphas[told], betas[told]
    curve = np.linspace(0, d.max(), _CURVE_POINTS)
    return Fit(
        form=form,
        alpha=_percentiles(fitted.alpha, alphas),
        beta=_percentiles(fitted.beta, betas),
        peak=_peak_between(fitted, alphas, betas, d[usable]),
        r_squared=fitted.r_squared,
        curve=[[float(x), float(y)] for x, y in zip(curve, fitted.gain(curve), strict=True)],
        baseline=float(scores[0].mean()),
        points=int(usable.sum()),
    )


def best_evaluation(history: Sequence[Mapping[str, Any]]) -> int:
    """Return the index of the evaluation with the highest mean true reward; the earliest of equals.

    Raises:
        ValueError: If there is no evaluation, or one has no true reward.
    """
    return int(_true_reward(history).mean(axis=1).argmax())


def fallen_significantly(
    history: Sequence[Mapping[str, Any]], best: int, seed: int = 0
) -> Interval:
    """Return the true reward's mean change from evaluation `best` to the last, 95 % over prompts.

    This is the figure to show. It is not the test to stop by: the best of many evaluations is
    partly the luckiest, so that under no change at all the interval often lies below 0. `falls` is
    free of that.

    Raises:
        ValueError: If an evaluation has no true reward, or there are fewer than two prompts.
    """
    values = _true_reward(history)
    return paired_bootstrap_mean(values[-1] - values[best], seed)


def falls(history: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether the true reward has fallen significantly below its best; asked at every evaluation.

    Two things would make a run stop that has not fallen, and each has its remedy:

    1. The best evaluation is chosen because it is high: prompts of one half choose the evaluation
       that the other half compares the last with, and the reverse (`best_by_the_others`).
    2. Every evaluation is another look: the fall must be significant (99 % interval below 0, by
       Student's t) at two evaluations running.

    Raises:
        ValueError: If an evaluation has no true reward.
    """
    return fallen(_true_reward(history))


def fallen(values: NDArray[np.float64]) -> bool:
    """Tell what `falls` does of [evaluations, prompts] values of the true reward."""
    if len(values) < 3:
        return False
    return values.shape[1] >= 4 and all(
        chance_of_fall(since_best(values[:looks])) < FALL_LEVEL
        for looks in (len(values), len(values) - 1)
    )


def since_best(
    values: NDArray[np.float64], chosen_by: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return [prompts] the last evaluation's values less those of the best one so far.

    Args:
        values: [evaluations, prompts] of the figure to compare.
        chosen_by: [evaluations, prompts] of the figure whose best is meant; `values` itself if
            None. Each half of the prompts goes by the other half's best.
    """
    best = best_by_the_others(values if chosen_by is None else chosen_by)
    change: NDArray[np.float64] = values[-1] - values[best, np.arange(values.shape[1])]
    return change


def _true_reward(history: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    values = per_prompt(history, "true_reward")
    if values is None:
        raise ValueError("without a true reward there is no best evaluation")
    return values


def _distance(kl: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sqrt(KL); a sampled KL can fall below 0, the true one cannot."""
    return np.sqrt(np.maximum(kl, 0.0))


def _usable(d: NDArray[np.float64], form: Form) -> NDArray[np.bool_]:
    return d >= LEAST_DISTANCE if form == "rl" else d > 0


def _bend(d: NDArray[np.float64], form: Form) -> NDArray[np.float64]:
    """Return what beta is multiplied by: d ln d or d^2."""
    bent: NDArray[np.float64] = special.xlogy(d, d) if form == "rl" else d * d
    return bent


def _solve(
    d: NDArray[np.float64], gains: NDArray[np.float64], form: Form
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return alpha and beta [fits] of [fits, points]; NaN where the two cannot be told apart."""
    bend = _bend(d, form)
    dd, db, bb = ((x * y).sum(axis=1) for x, y in ((d, d), (d, bend), (bend, bend)))
    dr, br = (d * gains).sum(axis=1), (bend * gains).sum(axis=1)
    determinant = dd * bb - db * db
    told = determinant > _LEAST_DETERMINANT * dd * bb
    divisor = np.where(told, determinant, np.nan)
    return (bb * dr - db * br) / divisor, (db * dr - dd * br) / divisor


def _peaks(
    alpha: NDArray[np.float64], beta: NDArray[np.float64], form: Form
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return distances and gains [fits] of the peaks; infinite where a curve has none."""
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
    # An order statistic and not a mixture of two: the next one may be infinite.
    low, high = np.quantile(resampled, [0.025, 0.975], method="inverted_cdf")
    return Interval(estimate, float(low), float(high))
