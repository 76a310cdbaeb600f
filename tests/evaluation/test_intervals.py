import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from rlhfctl.evaluation.intervals import Interval, paired_bootstrap_mean, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # published worked values of Wilson's interval at 95 %
        (0, 10, 0.0, 0.2775),
        (60, 100, 0.5020, 0.6906),
        (300, 500, 0.5565, 0.6420),
        (531, 805, 0.6262, 0.6915),
    ],
)
def test_wilson_gives_the_known_values(
    successes: int, trials: int, low: float, high: float
) -> None:
    interval = wilson(successes, trials)
    assert interval.value == successes / trials
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


@given(
    st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.sampled_from([0.8, 0.95, 0.99]),
)
def test_wilson_agrees_with_scipy_on_whole_counts(
    counted: tuple[int, int], confidence: float
) -> None:
    successes, trials = counted
    theirs = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    ours = wilson(successes, trials, confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@given(st.integers(1, 1000).flatmap(lambda n: st.tuples(st.integers(0, 2 * n), st.just(n))))
def test_wilson_takes_half_counts_and_stays_between_zero_and_one(counted: tuple[int, int]) -> None:
    halves, trials = counted
    interval = wilson(halves / 2, trials)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    mirrored = wilson(trials - halves / 2, trials)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - interval.high, 1 - interval.low))


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 3), (4, 3), (float("nan"), 3)])
def test_wilson_refuses_what_is_no_share(successes: float, trials: int) -> None:
    with pytest.raises(ValueError, match=r"trial"):
        wilson(successes, trials)


def test_the_bootstrap_agrees_with_students_interval_on_normal_values() -> None:
    values = np.random.default_rng(3).normal(0.4, 2.0, size=400)
    interval = paired_bootstrap_mean(values, seed=0)
    student = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    assert interval.value == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx(student, abs=0.02)


def test_the_bootstrap_covers_the_mean_of_skewed_values_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    intervals = [
        paired_bootstrap_mean(generator.exponential(size=60), seed, resamples=600)
        for seed in range(200)
    ]
    covered = sum(interval.low <= 1 <= interval.high for interval in intervals)
    assert 0.88 <= covered / 200 <= 0.99


def test_a_seed_fixes_the_bootstrap() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert paired_bootstrap_mean(values, seed=1) == paired_bootstrap_mean(values, seed=1)
    assert paired_bootstrap_mean(values, seed=1) != paired_bootstrap_mean(values, seed=2)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=30))
@example([0.0, 1e-300])
@example([1.0, 1.0, 1.0, 1.0 + 4e-16])
@example([2.0, 2.0])
@pytest.mark.filterwarnings("error")
def test_the_bootstrap_of_any_finite_values_is_finite_and_ordered(values: list[float]) -> None:
    interval = paired_bootstrap_mean(values, seed=0, resamples=200)
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")], [[1.0, 2.0]]])
def test_the_bootstrap_refuses_what_it_cannot_resample(values: list[float]) -> None:
    with pytest.raises(ValueError, match="bootstrap"):
        paired_bootstrap_mean(values, seed=0)


def test_an_interval_names_its_metrics() -> None:
    assert Interval(0.5, 0.4, 0.6).metrics("win_rate") == {
        "win_rate": 0.5,
        "win_rate_low": 0.4,
        "win_rate_high": 0.6,
    }


def test_an_end_that_is_zero_but_for_rounding_is_zero():
    """Three gains and 125 ties: the interval reaches to no gain at all, and not beyond it."""
    interval = paired_bootstrap_mean([1.0] * 3 + [0.0] * 125, seed=0)
    assert interval.low == 0.0
