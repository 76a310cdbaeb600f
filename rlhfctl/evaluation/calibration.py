"""Calibration of a reward model's preference probabilities.

Under a Bradley-Terry model the chosen response is preferred with probability sigmoid(margin),
margin = score(chosen) - score(rejected). Margins must be of raw scores: normalisation changes the
logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize
from scipy.special import expit

from rlhfctl.evaluation.intervals import Interval, wilson
from rlhfctl.results.evaluation import Calibration, CalibrationBin

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_DRAWS = 400


def reliability(margins: ArrayLike, bins: int) -> list[CalibrationBin]:
    """Return the bins of a reliability diagram of the favoured response; empty bins left out.

    Folded: confidence is max(p, 1 - p) with p = sigmoid(margin), so the order within a pair has no
    effect. Bins have equal widths over [0.5, 1]. A margin of 0 counts as half right.

    Args:
        margins: [pairs] raw score of the chosen response minus that of the rejected one.
        bins: Number of bins.

    Raises:
        ValueError: If there are no pairs, or a margin is not finite.
    """
    values = _checked(margins)
    confidence, right = expit(np.abs(values)), (np.sign(values) + 1) / 2
    which = _bin_of(confidence, bins)
    bins_with_pairs = []
    for number in range(bins):
        mask = which == number
        pairs = int(mask.sum())
        if pairs:
            bins_with_pairs.append(
                CalibrationBin(
                    0.5 + number / (2 * bins),
                    0.5 + (number + 1) / (2 * bins),
                    float(confidence[mask].mean()),
                    wilson(float(right[mask].sum()), pairs),
                    pairs,
                )
            )
    return bins_with_pairs


def expected_calibration_error(margins: ArrayLike, bins: int) -> float:
    """Return sum over bins of pairs / all * |observed - predicted| (Naeini et al. 2015), folded.

    Args:
        margins: [pairs], raw.
        bins: Number of equal-width bins over confidences in [0.5, 1].

    Raises:
        ValueError: If there are no pairs, or a margin is not finite.
    """
    diagram = reliability(margins, bins)
    total = sum(part.pairs for part in diagram)
    return sum(part.pairs * abs(part.observed.value - part.predicted) for part in diagram) / total


def error_if_calibrated(margins: ArrayLike, bins: int, seed: int) -> Interval:
    """Return the calibration error expected of a perfectly calibrated model.

    The error is never 0 on finitely many pairs. Outcomes are drawn from the model's own
    probabilities, so the simulated model is calibrated. Returns the mean error over the draws,
    with its 2.5 % and 97.5 % quantiles.

    Args:
        margins: [pairs], raw.
        bins: Number of bins, as for the observed error.
        seed: Seed of the draws.

    Raises:
        ValueError: If there are no pairs, or a margin is not finite.
    """
    values = _checked(margins)
    confidence = expit(np.abs(values))
    which = _bin_of(confidence, bins)
    predicted = np.bincount(which, confidence, bins)
    rng = np.random.default_rng(seed)
    errors = [
        np.abs(np.bincount(which, rng.random(len(values)) < confidence, bins) - predicted).sum()
        / len(values)
        for _ in range(_DRAWS)
    ]
    low, high = np.quantile(errors, (0.025, 0.975))
    return Interval(float(np.mean(errors)), float(low), float(high))


def brier(margins: ArrayLike) -> float:
    """Return the mean of (1 - p)^2, p = sigmoid(margin) (Brier 1950, two outcomes); 0.25 at chance.

    Raises:
        ValueError: If there are no pairs, or a margin is not finite.
    """
    return float(np.square(expit(-_checked(margins))).mean())


def negative_log_likelihood(margins: ArrayLike) -> float:
    """Return the mean of -log sigmoid(margin) in nats: the Bradley-Terry loss; log 2 at chance.

    Raises:
        ValueError: If there are no pairs, or a margin is not finite.
    """
    return float(np.logaddexp(0.0, -_checked(margins)).mean())


def fit_temperature(margins: ArrayLike) -> float | None:
    """Return the maximum-likelihood T > 0 of sigmoid(margin / T) (Guo et al. 2017, section 4.2).

    Above 1 the model is overconfident, below 1 underconfident.

    Args:
        margins: [pairs], raw.

    Returns:
        None without a finite positive maximum: T = 0 if no pair is wrong, T = infinity if the
        mean margin is not above 0.

    Raises:
        ValueError: If there are no pairs, or a margin is not finite.
    """
    values = _checked(margins)
    if float(values.mean()) <= 0 or not (values < 0).any():
        return None
    scale = float(np.abs(values).max())
    unit = values / scale

    # The log-likelihood is concave in 1 / T, so its slope has one root.
    def slope(inverse: float) -> float:
        return float((unit * expit(-inverse * unit)).mean())

    high = 1.0
    while slope(high) > 0:
        high *= 2
    return scale / float(optimize.brentq(slope, 0.0, high, xtol=1e-12, rtol=1e-12))


def calibration_metrics(margins: ArrayLike, bins: int, seed: int) -> Calibration:
    """Return the calibration of a reward model; its temperature is fitted on the same pairs.

    Args:
        margins: [pairs] raw margins.
        bins: Bins of the reliability diagram.
        seed: Seed of `error_if_calibrated`.

    Raises:
        ValueError: If there are no pairs, or a margin is not finite.
    """
    temperature = fit_temperature(margins)
    ece_scaled = None
    if temperature is not None:
        scaled = np.asarray(margins, dtype=np.float64) / temperature
        ece_scaled = expected_calibration_error(scaled, bins)
    return Calibration(
        ece=expected_calibration_error(margins, bins),
        ece_if_calibrated=error_if_calibrated(margins, bins, seed),
        brier=brier(margins),
        nll=negative_log_likelihood(margins),
        bins=reliability(margins, bins),
        temperature=temperature,
        ece_scaled=ece_scaled,
    )


def _bin_of(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    return np.minimum(((confidence - 0.5) * 2 * bins).astype(np.int64), bins - 1)


def _checked(margins: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(margins, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError("calibration needs at least one margin, in one dimension")
    if not np.isfinite(values).all():
        raise ValueError("calibration needs finite margins")
    return values
