"""Points by their seeds: who belongs together, and means with the interval between them."""

import pytest
from scipy import stats

from rlhfctl.sweep.metrics import groups_of, mean_best_of_n, means


def test_points_that_differ_in_their_seed_alone_belong_together():
    points = [{"ppo.beta": beta, "seed": seed} for seed in (0, 1) for beta in (0.0, 0.1)]
    assert groups_of(points) == [({"ppo.beta": 0.0}, [0, 2]), ({"ppo.beta": 0.1}, [1, 3])]
    assert groups_of([{"seed": 0}, {"seed": 1}]) == [({}, [0, 1])]


def test_the_interval_between_seeds_is_students():
    seen = [1.0, 2.0, 4.0]
    found = means([{"gold": value, "gold_low": 0.0, "judge": "gold"} for value in seen])
    expected = stats.ttest_1samp(seen, 0).confidence_interval(0.95)
    assert found == pytest.approx(
        {"gold": 7 / 3, "gold_low": expected.low, "gold_high": expected.high}
    )


def test_one_seed_has_no_interval_and_a_figure_that_one_lacks_no_mean():
    assert means([{"gold": 1.0, "gold_low": 0.5, "stopped_early": True}]) == {"gold": 1.0}
    assert means([{"gold": 1.0, "kl": 2.0}, {"kl": 4.0}])["kl"] == 3.0
    assert "gold" not in means([{"gold": 1.0, "kl": 2.0}, {"kl": 4.0}])


def test_best_of_n_of_several_seeds_is_their_mean():
    rows = [[{"n": n, "kl": 0.1 * n, "value": base + n} for n in (1, 2)] for base in (0.0, 1.0)]
    curves = [{"proxy": row, "samples": 2, "prompts": 8} for row in rows]
    found = mean_best_of_n(curves)
    assert [row["value"] for row in found["proxy"]] == [1.5, 2.5]
    assert found["proxy"][0]["value_low"] < 1.5 < found["proxy"][0]["value_high"]
    assert (found["samples"], found["prompts"]) == (2, 8)
    assert mean_best_of_n(curves[:1]) == curves[0]
