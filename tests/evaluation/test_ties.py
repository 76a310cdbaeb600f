"""RewardBench 2's scores of a hand-made set, worked out by hand from its rule."""

import math

import pytest

from rlhfctl.evaluation.subsets import best_of_metrics
from rlhfctl.evaluation.ties import RatedPrompt, ties_score
from tests.present import present

# Right responses within 1 of each other and 3 above the wrong ones; reference 2 above.
NEAR = RatedPrompt([4.0, 5.0], [1.0, 0.0])
# Right ones 2 apart and only 1 above; reference wrong.
APART = RatedPrompt([4.0, 2.0], [1.0])
# One right response is below a wrong one.
WRONG = RatedPrompt([4.0, 0.0], [1.0])


def test_ties_are_scored_by_rewardbenchs_rule() -> None:
    reference = {
        1: RatedPrompt([5.0], [3.0, 1.0]),
        2: RatedPrompt([1.0], [2.0]),
        3: RatedPrompt([9.0], [0.0]),
        9: RatedPrompt([9.0], [0.0]),
    }
    score = present(ties_score(reference, {1: NEAR, 2: APART, 3: WRONG, 8: NEAR}))
    assert score.accuracy == 3 / 4
    assert score.reference_accuracy == 3 / 4
    assert score.margin_accuracy == 1 / 3
    assert score.margin_accuracy_hard == 1 / 3
    assert score.prompts == 3
    tie_break = (math.tanh(2 / 1 - 1) + math.tanh(-1 / 2 - 1) + math.tanh(-1 / 4 - 1)) / 3
    expected = 0.3 * 1.5 + 0.2 * (2 / 3) + 0.01 * tie_break
    assert score.score == pytest.approx(expected, abs=1e-12)


def test_prompts_without_their_other_kind_have_no_score() -> None:
    assert ties_score({1: NEAR}, {2: NEAR}) is None


def test_the_right_response_must_be_above_all_three_and_equal_ones_share() -> None:
    prompts = [
        RatedPrompt([3.0], [2.0, 1.0, 0.0]),
        RatedPrompt([3.0], [0.0, 0.0, 4.0]),
        RatedPrompt([3.0], [3.0, 1.0, 0.0]),
    ]
    metrics = best_of_metrics(prompts, ["Math", "Math", "Focus"], {})
    assert metrics.subsets["Math"].accuracy.value == 0.5
    assert metrics.subsets["Focus"].accuracy.value == 0.5
    assert metrics.subsets_mean == 0.5
    assert metrics.ties is None


def test_ties_count_as_one_subset_in_the_mean() -> None:
    prompts = [RatedPrompt([3.0], [2.0, 1.0, 0.0])]
    ties = {"ref": {1: RatedPrompt([5.0], [3.0])}, "tied": {1: NEAR}}
    metrics = best_of_metrics(prompts, ["Math"], ties)
    score = present(metrics.ties).score
    assert metrics.subsets_mean == pytest.approx((1.0 + score) / 2)
