import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, stats

from rlhfctl.evaluation.changes import best_by_other_half, p_value_of_fall, p_value_of_rise
from rlhfctl.evaluation.overoptimisation import (
    Coefficients,
    Form,
    best_evaluation,
    fallen_significantly,
    falls,
    fit,
    fit_history,
    since_best,
)
from rlhfctl.results.io import to_json
from rlhfctl.results.training import HeldOutLine
from tests.evaluation.histories import history, quiet
from tests.present import present

FORMS: list[Form] = ["rl", "best_of_n"]


def gains(distances: NDArray[np.float64], alpha: float, beta: float, form: Form) -> Any:
    """Gao et al.'s formulas, written down a second time; d above 0."""
    bend = np.log(distances) if form == "rl" else distances
    return distances * (alpha - beta * bend)


@pytest.mark.parametrize("form", FORMS)
@given(alpha=st.floats(-2, 3), beta=st.floats(-1, 1), far=st.floats(2, 20))
def test_planted_parameters_are_found_without_noise(
    form: Form, alpha: float, beta: float, far: float
) -> None:
    d = np.linspace(0.4, far, 9)
    found = fit(d, gains(d, alpha, beta, form), form)
    assert found is not None
    assert (found.alpha, found.beta) == pytest.approx((alpha, beta), abs=1e-9)


def test_a_fit_is_the_weighted_regression_of_the_slope() -> None:
    rng = np.random.default_rng(1)
    d = np.linspace(0.4, 5, 12)
    r = gains(d, 1.0, 0.4, "rl") + rng.normal(0, 0.2, len(d))
    found = fit(d, r, "rl")
    assert found is not None
    slope, level = np.polyfit(np.log(d), r / d, 1, w=d)  # numpy weighs residuals, not squares
    assert (found.alpha, found.beta) == pytest.approx((level, -slope), abs=1e-12)
    assert found.r_squared == pytest.approx(
        1 - np.sum((r - gains(d, level, -slope, "rl")) ** 2) / np.sum((r - r.mean()) ** 2)
    )


def test_points_near_the_start_are_left_out_under_rl() -> None:
    d = np.array([0.0, 0.1, 0.29, 0.5, 1.0, 2.0, 3.0])
    r = np.concatenate([[9.0, 9.0, 9.0], gains(d[3:], 1.0, 0.5, "rl")])
    found = fit(d, r, "rl")
    assert found is not None
    assert (found.alpha, found.beta) == pytest.approx((1.0, 0.5), abs=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_too_few_points_or_all_at_one_distance_fit_nothing(form: Form) -> None:
    assert fit([0.5, 1.0, 2.0], [1.0, 2.0, 1.0], form) is None
    assert fit([0.5] * 6, [1.0, 2.0, 1.0, 1.0, 2.0, 1.0], form) is None
    assert fit([], [], form) is None


@pytest.mark.parametrize(
    ("distances", "values"), [([1.0, 2.0], [1.0]), ([math.nan] * 5, [1.0] * 5)]
)
def test_a_fit_refuses_what_are_no_points(distances: list[float], values: list[float]) -> None:
    with pytest.raises(ValueError, match="a fit needs"):
        fit(distances, values, "rl")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.4), (0.3, 0.05), (2.0, 1.5)])
def test_the_peak_is_where_the_curve_is_highest(form: Form, alpha: float, beta: float) -> None:
    curve = Coefficients(form, alpha, beta, None)
    peak = curve.peak()
    assert peak is not None
    distance, value = peak
    highest = optimize.minimize_scalar(
        lambda d: -float(curve.gain(d)), bounds=(0, 3 * distance), method="bounded"
    )
    assert distance == pytest.approx(highest.x, rel=1e-4)
    assert value == pytest.approx(-highest.fun, rel=1e-9)
    # The curve is back at 0 at exp(alpha / beta), respectively alpha / beta.
    zero = math.exp(alpha / beta) if form == "rl" else alpha / beta
    assert float(curve.gain(zero)) == pytest.approx(0, abs=1e-9 * zero)


@pytest.mark.parametrize("form", FORMS)
def test_a_curve_that_only_rises_has_no_peak(form: Form) -> None:
    assert Coefficients(form, 1.0, 0.0, None).peak() is None
    assert Coefficients(form, 1.0, -0.2, None).peak() is None
    assert Coefficients("best_of_n", -1.0, 0.2, None).peak() is None


def run_along(
    rng: np.random.Generator, alpha: float, beta: float, form: Form, farthest: float = 3.5
) -> list[HeldOutLine]:
    """Evaluations of a run that follows a curve; 48 prompts that differ in distance and gain."""
    d = np.linspace(0, farthest, 12)
    mean = np.concatenate([[0.0], gains(d[1:], alpha, beta, form)])
    metrics = quiet(rng, len(d))
    metrics["true_reward"] += mean[:, None]
    metrics["kl"] = d[:, None] ** 2 * rng.gamma(9, 1 / 9, size=metrics["kl"].shape)
    return history(metrics)


@pytest.mark.parametrize("form", FORMS)
def test_intervals_hold_planted_parameters_as_often_as_they_say(form: Form) -> None:
    alpha, beta = 1.0, 0.6 if form == "rl" else 0.25
    peak = Coefficients(form, alpha, beta, None).peak()
    assert peak is not None
    runs, held = 200, np.zeros(4)
    for seed in range(runs):
        found = fit_history(
            run_along(np.random.default_rng(seed), alpha, beta, form),
            "true_reward",
            seed=seed,
            form=form,
            resamples=500,
        )
        assert found is not None
        assert found.peak is not None
        assert found.peak.observed
        intervals = (found.alpha, found.beta, found.peak.distance, found.peak.value)
        held += [
            present(interval.low) <= truth <= present(interval.high)
            for interval, truth in zip(intervals, (alpha, beta, *peak), strict=True)
        ]
    assert (held / runs >= 0.9).all(), held / runs


def test_a_fit_is_kept_as_plain_metrics_and_depends_on_its_seed_alone() -> None:
    lines = run_along(np.random.default_rng(0), 1.0, 0.6, "rl")
    found = fit_history(lines, "true_reward", seed=3)
    assert found is not None
    assert found == fit_history(lines, "true_reward", seed=3)
    metrics = to_json(found)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert {"form", "alpha", "alpha_low", "alpha_high", "beta", "peak", "r_squared"} <= set(metrics)
    assert set(metrics["peak"]) == {
        *("distance", "distance_low", "distance_high"),
        *("value", "value_low", "value_high", "observed"),
    }
    assert metrics["curve"][0] == [0.0, 0.0]
    farthest = math.sqrt(np.mean(lines[-1].per_prompt["kl"]))
    assert metrics["curve"][-1][0] == pytest.approx(farthest)
    assert metrics["baseline"] == pytest.approx(np.mean(lines[0].per_prompt["true_reward"]))
    assert metrics["points"] == 11
    assert 0 < metrics["r_squared"] < 1


def test_a_peak_beyond_the_run_is_not_called_observed_and_none_is_told_of_a_line() -> None:
    rng = np.random.default_rng(0)
    beyond = fit_history(run_along(rng, 1.0, 0.35, "rl", farthest=5.0), "true_reward")
    assert beyond is not None
    assert beyond.peak is not None
    assert beyond.peak.distance.value > 5.0
    assert not beyond.peak.observed
    rising = fit_history(run_along(rng, 1.0, 0.0, "rl"), "true_reward")
    assert rising is not None
    assert rising.peak is None
    assert to_json(rising)["peak"] is None


def test_nothing_is_fitted_to_what_is_not_there() -> None:
    lines = run_along(np.random.default_rng(0), 1.0, 0.6, "rl")
    assert fit_history([], "proxy") is None
    assert fit_history(lines[:4], "proxy") is None
    assert fit_history(lines, "none_such") is None
    one_prompt = [
        replace(line, per_prompt={name: values[:1] for name, values in line.per_prompt.items()})
        for line in lines
    ]
    assert fit_history(one_prompt, "proxy") is None
    lines[3].per_prompt["kl"].pop()
    with pytest.raises(ValueError, match="kl: evaluations must have the same prompts"):
        fit_history(lines, "proxy")


def test_the_best_evaluation_and_the_fall_since() -> None:
    metrics = quiet(np.random.default_rng(0), 6)
    metrics["true_reward"] += np.array([0, 1, 3, 2, 2, 1])[:, None]
    lines = history(metrics)
    assert best_evaluation(lines) == 2
    fall = fallen_significantly(lines, 2)
    assert fall.high < 0
    assert fall.value == pytest.approx(
        np.mean(metrics["true_reward"][5] - metrics["true_reward"][2])
    )
    with pytest.raises(ValueError, match="needs a true reward"):
        best_evaluation(history({"kl": metrics["kl"]}))


def test_a_fall_counts_at_the_second_evaluation_that_shows_it() -> None:
    metrics = quiet(np.random.default_rng(0), 7)
    metrics["true_reward"] += np.array([0, 1, 3, 3, 1, 1, 3])[:, None]
    lines = history(metrics)
    assert [falls(lines[:looks]) for looks in range(1, 8)] == [*[False] * 5, True, False]


def test_a_run_that_does_not_change_seldom_stops() -> None:
    """False stops in 500 runs of 20 evaluations; the plain interval below the best for contrast."""
    runs, stopped, naive = 500, 0, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        values = (rng.normal(size=32) + rng.normal(size=(20, 32))) / np.sqrt(2)
        lines = history({"true_reward": values})
        stopped += any(falls(lines[:looks]) for looks in range(3, 21))
        naive += any(
            p_value_of_fall(values[last] - values[values[: last + 1].mean(axis=1).argmax()]) < 0.025
            for last in range(2, 20)
        )
    assert stopped <= 0.02 * runs
    assert naive > 0.5 * runs


def test_each_half_of_the_prompts_is_compared_with_the_others_best() -> None:
    values = np.array([[9.0, 0.0, 9.0, 0.0], [0.0, 5.0, 0.0, 5.0], [1.0, 1.0, 1.0, 1.0]])
    assert best_by_other_half(values).tolist() == [1, 0, 1, 0]
    assert since_best(values).tolist() == [1.0, 1.0, 1.0, 1.0]
    assert since_best(-values, chosen_by=values).tolist() == [-1.0, -1.0, -1.0, -1.0]


def test_chances_are_students_one_sided() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, size=20)
    expected = stats.ttest_1samp(values, 0, alternative="greater").pvalue
    assert p_value_of_rise(values) == pytest.approx(expected, rel=1e-9)
    assert p_value_of_fall(values) == pytest.approx(1 - expected, rel=1e-9)
    assert p_value_of_rise([0.0] * 8) == p_value_of_fall([0.0] * 8) == 1.0
    assert p_value_of_rise([2.0] * 8) == 0.5**8
    assert p_value_of_rise([5.0]) == 1.0
