import numpy as np
import pytest

from rlhfctl.evaluation.slices import OTHERS, accuracy_by_margin, accuracy_by_name


def test_margins_are_grouped_at_their_quantiles_smallest_first():
    margins = np.arange(1.0, 13.0)
    found = accuracy_by_margin((margins > 6).astype(float), np.full(12, 0.5), margins)
    assert {name: (group.accuracy.value, group.pairs) for name, group in found.items()} == {
        "1 to 3": (0.0, 3),
        "4 to 6": (0.0, 3),
        "7 to 9": (1.0, 3),
        "10 to 12": (1.0, 3),
    }
    assert list(found) == ["1 to 3", "4 to 6", "7 to 9", "10 to 12"]


def test_equal_margins_stay_together_and_no_pair_is_lost():
    found = accuracy_by_margin(np.ones(9), np.zeros(9), [1, 1, 1, 1, 1, 1, 2, 3, 3])
    assert sum(group.pairs for group in found.values()) == 9
    assert len(found) <= 3
    assert list(accuracy_by_margin([1, 1], [0, 0], [2, 2])) == ["2 to 2"]


def test_pairs_without_a_name_are_left_out_and_rare_names_stand_together():
    names = ["", *(name for at in range(30) for name in [f"n{at:02}"] * (40 - at))]
    found = accuracy_by_name(np.ones(len(names)), np.zeros(len(names)), names)
    assert len(found) == 25
    assert found[OTHERS].pairs == sum(40 - at for at in range(24, 30))
    assert sum(group.pairs for group in found.values()) == len(names) - 1
    assert accuracy_by_name([1.0], [0.0], [""]) == {}


def test_names_must_be_one_a_pair():
    with pytest.raises((ValueError, IndexError)):
        accuracy_by_name([1.0, 0.0], [0.0, 0.0], ["a"])
