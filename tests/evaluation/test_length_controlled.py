"""The length-controlled win rate: against its published code, and on data with planted biases."""

import numpy as np
import pytest

from rlhfctl.evaluation.length_controlled import length_controlled_win_rate


def planted(n, theta, phi, shift, seed):
    """Wins that follow quality theta and a judge's liking phi for length; a tenth are ties."""
    rng = np.random.default_rng(seed)
    longer = np.round(rng.normal(shift, 60, n))
    odds = theta + phi * np.tanh(longer / longer.std())
    won = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(float)
    won[::10] = 0.5
    return won, longer


@pytest.mark.parametrize(
    ("data", "published"),
    [
        # scikit-learn 1.8 as alpaca_eval's glm_winrate.py calls it on these data: LogisticRegressionCV,
        # liblinear, L1, five folds by prompt, no intercept, seed 123, ties as two weighted rows.
        ((200, 0.3, 1.2, 40, 0), 0.536528),
        ((400, -0.4, 2.0, 80, 1), 0.382607),
        ((805, 1.0, 0.5, -30, 2), 0.668621),
    ],
)
def test_it_is_that_of_the_published_code_but_for_the_penalty(data, published):
    won, longer = planted(*data)
    rate = length_controlled_win_rate(won, longer, np.zeros(len(won)), 0, resamples=10)
    assert rate.value == pytest.approx(published, abs=0.0015)


def test_a_planted_liking_for_length_is_taken_out():
    won, longer = planted(4000, 0.0, 2.0, 80, 5)
    assert won.mean() > 0.7
    rate = length_controlled_win_rate(won, longer, np.zeros(len(won)), 0)
    assert rate.low < 0.5 < rate.high
    assert rate.high - rate.low < 0.1


def test_where_none_is_planted_it_is_the_win_rate():
    won, longer = planted(4000, 0.8, 0.0, 80, 6)
    rate = length_controlled_win_rate(won, longer, np.zeros(len(won)), 0)
    assert rate.value == pytest.approx(won.mean(), abs=0.03)
    assert rate.low < won.mean() < rate.high


def test_swapping_the_sides_gives_one_less_the_rate():
    won, longer = planted(300, 0.4, 1.0, 30, 7)
    zeros = np.zeros(len(won))
    rate = length_controlled_win_rate(won, longer, zeros, 0)
    swapped = length_controlled_win_rate(1 - won, zeros, longer, 0)
    assert swapped.value == pytest.approx(1 - rate.value, abs=1e-9)
    assert (swapped.low, swapped.high) == pytest.approx((1 - rate.high, 1 - rate.low), abs=1e-9)


def test_equal_texts_and_symmetric_data_give_one_half():
    ties = length_controlled_win_rate([0.5] * 40, [20] * 40, [20] * 40, 0)
    assert (ties.value, ties.low, ties.high) == (0.5, 0.5, 0.5)
    won = np.array([1.0, 0.0] * 50)
    longer = np.tile([30.0, -30.0], 50)
    assert length_controlled_win_rate(won, longer, 0 * longer, 0).value == pytest.approx(0.5)


def test_winning_always_is_a_rate_near_one_and_not_a_failed_fit():
    rate = length_controlled_win_rate(np.ones(50), np.arange(50.0), np.zeros(50), 0)
    assert 0.98 < rate.low <= rate.value <= rate.high < 1.0


def test_the_interval_covers_the_planted_rate():
    truth = 1 / (1 + np.exp(-0.4))
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        longer = rng.normal(40, 60, 250)
        odds = 0.4 + 1.5 * np.tanh(longer / 60)
        won = (rng.random(250) < 1 / (1 + np.exp(-odds))).astype(float)
        rate = length_controlled_win_rate(won, longer, np.zeros(250), seed, resamples=200)
        covered += rate.low <= truth <= rate.high
    assert covered >= 180


@pytest.mark.parametrize(
    ("won", "lengths"), [([], []), ([1.0], [1, 2]), ([1.2], [1]), ([float("nan")], [1])]
)
def test_what_is_no_comparison_is_refused(won, lengths):
    with pytest.raises(ValueError, match=r"one value per prompt|between 0 and 1"):
        length_controlled_win_rate(won, lengths, lengths, 0)
