"""Rules of Coste et al. 2024 and the weighted sum, on numbers worked out by hand."""

import pytest
import torch

from rlhfctl.maths.ensembles import combine_scores

SCORES = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 6.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("weighted_sum", [0.5 + 4.0 - 3.0, -6.0]),
        ("mean", [2.0, 2.0]),
        ("worst", [1.0, 0.0]),
        ("uncertainty", [1.5, -4.0]),
    ],
)
def test_each_rule_has_its_golden_values(rule, expected):
    combined = combine_scores(SCORES, [0.5, 2.0, -1.0], rule, penalty=0.5)
    assert combined.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("rule", ["mean", "worst", "uncertainty"])
def test_one_source_is_its_own_ensemble(rule):
    alone = torch.tensor([[0.25, -3.0]])
    assert torch.equal(combine_scores(alone, [7.0], rule, penalty=0.5), alone[0])


def test_weights_must_be_as_many_as_sources():
    with pytest.raises(ValueError, match="3 sources, but 2 weights"):
        combine_scores(SCORES, [1.0, 1.0], "weighted_sum")


def test_no_source_and_no_such_rule_are_refused():
    with pytest.raises(ValueError, match="no source"):
        combine_scores(torch.empty(0, 4), [], "mean")
    with pytest.raises(ValueError, match="no rule 'median'"):
        combine_scores(SCORES, [], "median")  # type: ignore[arg-type]
