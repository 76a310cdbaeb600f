"""Labels of a file that prefer a response, and labels that are ties."""

import numpy as np
import pytest

from rlhfctl.evaluation.sides import Sides, sides_of


@pytest.mark.parametrize(
    ("classes", "sides"),
    [
        (["first", "second"], Sides(0, 1)),
        (["2", "1", "0"], Sides(1, 0, (2,))),
        (["-1", "0", "1"], Sides(2, 0, (1,))),
        (["A", "tie", "B"], Sides(0, 2, (1,))),
        (["ppo", "opponent", "tie"], Sides(0, 1, (2,))),
        (["model_b", "tie (bothbad)", "model_a", "tie"], Sides(2, 0, (1, 3))),
        (["0", "1"], Sides(0, 1)),
        (["good", "bad"], Sides(0, 1)),
        (["a", "tie"], None),
        (["1", "2", "3"], None),
        (["toxic", "neutral", "kind"], None),
        (["a", "first", "b"], None),
        (["a"], None),
    ],
)
def test_known_names_are_sides(classes, sides):
    assert sides_of(classes) == sides


def test_a_tie_counts_one_half():
    counts = np.array([[0, 1, 3], [2, 1, 0], [4, 0, 0]], dtype=float)
    sides = Sides(1, 2, (0,))
    assert sides.first_shares(counts).tolist() == [0.25, 2 / 3, 0.5]
    assert sides.strict(counts).tolist() == [[1, 3], [1, 0], [0, 0]]
