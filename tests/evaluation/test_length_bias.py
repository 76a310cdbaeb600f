import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from rlhfctl.evaluation.length_bias import length_metrics, within_prompt_correlation
from rlhfctl.evaluation.preferences import accuracy
from rlhfctl.results.estimate import GroupAccuracy
from rlhfctl.results.io import to_json
from tests.present import present


def test_each_group_holds_the_pairs_that_it_names():
    metrics = to_json(
        length_metrics(
            [1, 1, 0, 0, 2], [0, 0, 1, 1, 2], [9, 3, 100, 7, 5], [4, 8, 97, 2, 6], range(5), seed=0
        )
    )
    groups = {
        "longer_wins": ([1, 0, 1, 1, 0], [0, 1, 0, 0, 1]),
        "shorter_wins": ([0, 1, 0, 0, 1], [1, 0, 1, 1, 0]),
        "equal_length": ([0], [1]),
        "longer_chosen": ([1, 0], [0, 1]),
        "shorter_chosen": ([1, 2], [0, 2]),
    }
    for name, (won, lost) in groups.items():
        assert metrics[name] == to_json(GroupAccuracy(accuracy(won, lost), len(won)))


def test_groups_without_pairs_are_left_out():
    metrics = to_json(length_metrics([1.0, 0.0], [0.0, 1.0], [5, 6], [5, 6], ["a", "b"], seed=0))
    assert set(metrics) == {"longer_wins", "shorter_wins", "equal_length"}
    assert metrics["longer_wins"]["accuracy"] == 0.5


def responses(
    liking: float, within: float = 1.0, prompts: int = 300
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[int]]:
    """Four responses a prompt; prompts that want long answers have high scores anyway."""
    generator = np.random.default_rng(1)
    names = np.repeat(np.arange(prompts), 4)
    wanted = generator.normal(0, 50, prompts)[names]
    spread = generator.normal(0, 10, len(names))
    scores = wanted + liking * spread / 10 + within * generator.normal(size=len(names))
    return scores, 200 + wanted + spread, names.tolist()


def test_long_answers_to_prompts_that_want_them_are_no_liking_for_length():
    scores, lengths, prompts = responses(liking=0.0)
    assert stats.pearsonr(scores, lengths).statistic > 0.95
    found = present(within_prompt_correlation(scores, lengths, prompts, seed=0))
    assert found.low < 0 < found.high
    assert abs(found.value) < 0.06


@pytest.mark.parametrize("liking", [-1.0, 0.5, 2.0])
def test_a_planted_liking_lies_in_its_interval(liking):
    scores, lengths, prompts = responses(liking)
    found = present(within_prompt_correlation(scores, lengths, prompts, seed=0))
    assert found.low < liking / np.hypot(liking, 1.0) < found.high
    assert found.high - found.low < 0.12


def test_with_one_pair_a_prompt_it_is_the_correlation_of_differences_through_the_origin():
    generator = np.random.default_rng(2)
    scores, lengths = generator.normal(size=(2, 2, 80))
    ds, dl = scores[0] - scores[1], lengths[0] - lengths[1]
    found = present(
        within_prompt_correlation(scores.ravel(), lengths.ravel(), [*range(80)] * 2, seed=0)
    )
    assert found.value == pytest.approx((ds @ dl) / np.sqrt((ds @ ds) * (dl @ dl)))


@pytest.mark.filterwarnings("error")
def test_a_score_that_is_the_length_correlates_fully():
    lengths = np.random.default_rng(0).integers(5, 50, 60).astype(float)
    found = present(within_prompt_correlation(3 * lengths, lengths, [*range(30)] * 2, seed=0))
    assert (found.low, found.value, found.high) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize(
    ("scores", "lengths"), [([1, 2, 3, 4], [5, 6, 5, 6]), ([1, 2, 1, 2], [4, 6, 7, 8])]
)
def test_without_differences_within_prompts_there_is_no_correlation(scores, lengths):
    assert within_prompt_correlation(scores, lengths, ["a", "b", "a", "b"], seed=0) is None


@pytest.mark.filterwarnings("error")
def test_two_prompts_are_enough_for_a_finite_interval():
    found = present(
        within_prompt_correlation([1, 1, 2, 3], [4, 6, 7, 8], ["a", "b", "a", "b"], seed=0)
    )
    assert -1 <= found.low <= found.value <= found.high <= 1 + 1e-12
