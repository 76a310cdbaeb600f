"""Points by their seeds: who belongs together, and means with the interval between them."""

import pytest
from scipy import stats

from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import BestOfN, BestOfNRow
from rlhfctl.results.sweep import SettingMetrics
from rlhfctl.sweep.metrics import groups_of, mean_best_of_n, means
from tests.present import present


def test_points_that_differ_in_their_seed_alone_belong_together():
    points = [{"ppo.beta": beta, "seed": seed} for seed in (0, 1) for beta in (0.0, 0.1)]
    assert groups_of(points) == [({"ppo.beta": 0.0}, [0, 2]), ({"ppo.beta": 0.1}, [1, 3])]
    assert groups_of([{"seed": 0}, {"seed": 1}]) == [({}, [0, 1])]


def test_the_interval_between_seeds_is_students():
    seen = [1.0, 2.0, 4.0]
    found = present(means([SettingMetrics(gold=Estimate(value, 0.0, 9.0)) for value in seen]).gold)
    expected = stats.ttest_1samp(seen, 0).confidence_interval(0.95)
    assert found.value == pytest.approx(7 / 3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_one_seed_has_no_interval_and_a_metric_that_one_lacks_no_mean():
    one = SettingMetrics(gold=Estimate(1.0, 0.5, 1.5), kl=Estimate(2.0))
    assert means([one]) == SettingMetrics(gold=Estimate(1.0), kl=Estimate(2.0))
    found = means([one, SettingMetrics(kl=Estimate(4.0))])
    assert present(found.kl).value == 3.0
    assert found.gold is None


def test_best_of_n_of_several_seeds_is_their_mean():
    curves = [
        BestOfN(2, 8, proxy=[BestOfNRow(n, 0.1 * n, Estimate(base + n)) for n in (1, 2)])
        for base in (0.0, 1.0)
    ]
    found = mean_best_of_n(curves)
    assert [row.value.value for row in found.proxy] == [1.5, 2.5]
    first = found.proxy[0].value
    assert present(first.low) < 1.5 < present(first.high)
    assert (found.samples, found.prompts, found.gold) == (2, 8, None)
    assert mean_best_of_n(curves[:1]) == curves[0]
