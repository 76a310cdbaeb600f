"""Explained variance and running moments."""

import pytest
import torch

from rlhfctl.maths.statistics import RunningMoments, explained_variance
from tests.reference import ppo_reference as reference

ALL = torch.ones(1, 5, dtype=torch.bool)


def test_perfect_values_explain_everything_and_constant_ones_nothing():
    returns = torch.tensor([[1.0, 2.0, -1.0, 0.5, 3.0]])
    assert explained_variance(returns, returns, ALL) == 1.0
    assert explained_variance(torch.ones(1, 5), returns, ALL) == pytest.approx(0.0, abs=1e-6)
    assert explained_variance(returns, torch.ones(1, 5), ALL) == 0.0


def test_it_agrees_with_the_reference():
    torch.manual_seed(0)
    values, returns = torch.randn(2, 1, 5, dtype=torch.float64)
    expected = reference.explained_variance(values[0].tolist(), returns[0].tolist())
    assert explained_variance(values, returns, ALL) == pytest.approx(expected)


def test_running_moments_are_those_of_everything_seen():
    torch.manual_seed(1)
    scores = torch.randn(50, dtype=torch.float64) * 3 + 2
    moments = RunningMoments()
    for part in scores.split([7, 1, 30, 12]):
        moments = moments.update(part)
    assert moments.count == 50
    assert moments.mean == pytest.approx(scores.mean().item())
    assert moments.deviation == pytest.approx(scores.std(correction=0).item())
    assert moments.update(torch.empty(0)) == moments
    assert RunningMoments().update(torch.tensor([4.0])).deviation == 1.0
