import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfctl.errors import DataError, DivergedError
from rlhfctl.evaluation.intervals import wilson
from rlhfctl.evaluation.preferences import accuracy, accuracy_by_group, longer_wins, win_rate
from rlhfctl.results.io import to_json

SCORES = st.floats(-100, 100)
PAIRS = st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=40)


def test_a_tie_counts_one_half() -> None:
    assert accuracy([2.0, 1.0, 0.0, 0.0], [1.0, 2.0, 0.0, -1.0]) == wilson(2.5, 4)


def test_a_model_that_scores_everything_alike_is_at_chance() -> None:
    interval = accuracy(np.zeros(100), np.zeros(100))
    assert interval.value == 0.5
    assert interval.low < 0.5 < interval.high


@given(PAIRS)
def test_turning_every_pair_round_mirrors_the_accuracy(pairs: list[tuple[float, float]]) -> None:
    chosen, rejected = zip(*pairs, strict=True)
    forwards, backwards = accuracy(chosen, rejected), accuracy(rejected, chosen)
    assert forwards.value == pytest.approx(1 - backwards.value)
    assert forwards.low == pytest.approx(1 - backwards.high)


@given(PAIRS)
def test_only_the_order_of_scores_counts(pairs: list[tuple[float, float]]) -> None:
    chosen, rejected = np.array(pairs).T
    assert accuracy(chosen, rejected) == accuracy(4 * chosen, 4 * rejected)


def test_groups_are_judged_each_on_its_own_pairs() -> None:
    found = accuracy_by_group([1, 1, 0, 1], [0, 2, 0, 0], ["eve", "ada", "ada", "eve"])
    assert list(found) == ["ada", "eve"]
    assert to_json(found["ada"]) == {
        "accuracy": 0.25,
        "low": wilson(0.5, 2).low,
        "high": wilson(0.5, 2).high,
        "pairs": 2,
    }
    assert found["eve"].accuracy == wilson(2, 2)


def test_groups_must_name_every_pair() -> None:
    with pytest.raises(ValueError, match="longer than"):
        accuracy_by_group([1.0, 2.0], [0.0, 0.0], ["ada"])


def test_the_longer_one_wins_by_length_alone() -> None:
    assert longer_wins([10, 3, 5], [4, 9, 5]) == wilson(1.5, 3)


def test_the_win_rate_is_over_prompts() -> None:
    assert win_rate([0.9, 0.1, 0.5], [0.2, 0.0, 0.5]) == wilson(2.5, 3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(DivergedError, match="not finite"):
        accuracy([bad, 1.0], [0.0, 0.0])


def test_no_pairs_is_a_fault_of_the_data() -> None:
    with pytest.raises(DataError, match="no pairs"):
        accuracy([], [])


def test_unequal_lengths_are_a_bug() -> None:
    with pytest.raises(ValueError, match="equally long"):
        accuracy([1.0, 2.0], [1.0])
