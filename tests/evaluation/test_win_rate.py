"""Preferences counted: wins, ties, losses, intervals, and a judge that likes a position."""

import numpy as np
import pytest

from rlhfctl.evaluation.win_rate import BothOrders, pairwise_outcomes, win_rate_metrics
from rlhfctl.results.io import to_json


def win_rate_metrics_json(*arguments, **options):
    """Return the result as JSON, in which an estimate is flat."""
    return to_json(win_rate_metrics(*arguments, **options))


def texts(n, length=10):
    return ["x" * length] * n


def test_scores_become_outcomes():
    assert pairwise_outcomes([1.0, 2.0, 3.0], [2.0, 2.0, 1.0]) == [0.0, 0.5, 1.0]


def test_wins_ties_and_losses_are_counted_and_those_without_a_word_left_out():
    metrics = win_rate_metrics_json([1.0, 0.5, 0.0, 1.0, None, 0.75], texts(6), texts(6), 0)
    assert (metrics["wins"], metrics["ties"], metrics["losses"]) == (3, 1, 1)
    assert metrics["prompts"] == 5
    assert metrics["win_rate"] == pytest.approx(3.25 / 5)
    assert metrics["win_rate_low"] < 0.65 < metrics["win_rate_high"]
    assert metrics["warnings"] == []


def test_a_win_rate_that_length_explains_is_warned_of():
    rng = np.random.default_rng(0)
    longer = rng.integers(1, 200, 300)
    ours = ["x" * int(300 + more) for more in longer]
    theirs = texts(300, 330)
    won = [float(len(one) > len(two)) for one, two in zip(ours, theirs, strict=True)]
    metrics = win_rate_metrics_json(won, ours, theirs, 0)
    assert metrics["win_rate"] > 0.8
    assert metrics["length_controlled_win_rate"] < 0.7
    assert "equal length" in metrics["warnings"][0]


@pytest.mark.parametrize("outcomes", [[None, None], [1.0, None]])
def test_with_too_few_prompts_there_is_no_interval(outcomes):
    metrics = win_rate_metrics_json(outcomes, texts(2), texts(2), 0)
    assert "win_rate_low" not in metrics
    assert metrics["prompts"] == sum(outcome is not None for outcome in outcomes)


def asked(liking, quality, n, seed):
    """A judge's verdicts in both orders; `liking` adds to the odds of what is shown first."""
    rng = np.random.default_rng(seed)
    first = rng.random(n) < 1 / (1 + np.exp(-(quality + liking)))
    second = rng.random(n) < 1 / (1 + np.exp(-(quality - liking)))
    return BothOrders(list(map(float, first)), list(map(float, second)))


def test_a_planted_liking_for_the_first_place_is_found():
    orders = asked(1.5, 0.0, 400, 0)
    bias, warnings = orders.position_bias(0)
    truth = 1 / (1 + np.exp(-1.5))
    assert bias.first_share.low < truth < bias.first_share.high
    assert bias.first_share.low > 0.7
    assert "shown first" in warnings[0]


def test_asked_in_both_orders_a_liking_for_a_place_leaves_the_win_rate_at_one_half():
    missed = 0
    for seed in range(40):
        outcomes = asked(1.5, 0.0, 200, seed).outcomes()
        metrics = win_rate_metrics_json(outcomes, texts(200), texts(200), 0)
        missed += not metrics["win_rate_low"] <= 0.5 <= metrics["win_rate_high"]
    assert missed <= 5, "intervals of 95 % miss two in forty"


def test_a_liking_for_the_second_place_is_named_so():
    assert "shown second" in asked(-1.5, 0.0, 400, 1).position_bias(0)[1][0]


def test_where_no_liking_is_planted_none_is_found():
    found = [asked(0.0, 1.0, 200, seed).position_bias(0)[1] for seed in range(40)]
    assert sum(map(bool, found)) <= 5


def test_a_prompt_counts_only_with_both_verdicts():
    orders = BothOrders([1.0, None, 0.0, 1.0], [1.0, 1.0, None, 0.5])
    assert orders.outcomes() == [1.0, None, None, 0.75]
    assert BothOrders([1.0], [1.0]).first_share(0) is None
