"""Score and value heads: initial spread, and a value that starts on the scale of rewards."""

import math

import pytest
import torch

from rlhfctl.errors import CheckpointError
from rlhfctl.models.heads import ScoreNormalization, initialise_score_head, value_head_from_score


def test_the_score_head_starts_with_deviation_one_over_the_root_of_its_inputs():
    head = torch.nn.Linear(4096, 1, bias=False)
    initialise_score_head(head, seed=3)
    assert head.weight.std().item() == pytest.approx(0.015624, rel=0.05)
    again = torch.nn.Linear(4096, 1, bias=False)
    initialise_score_head(again, seed=3)
    assert torch.equal(head.weight, again.weight)


def test_the_value_head_gives_the_normalised_score():
    head = torch.nn.Linear(8, 1, bias=False)
    normalization = ScoreNormalization(mean=0.7, deviation=2.5, samples=256)
    states = torch.randn(5, 8)
    torch.testing.assert_close(
        value_head_from_score(head, normalization)(states), normalization.apply(head(states))
    )


def test_normalised_calibration_scores_have_mean_zero_and_deviation_one():
    scores = torch.randn(256, dtype=torch.float64) * 3 + 1
    normalization = ScoreNormalization(float(scores.mean()), float(scores.std(correction=0)), 256)
    applied = normalization.apply(scores)
    assert applied.mean().abs() < 1e-5
    assert applied.std(correction=0).item() == pytest.approx(1.0, abs=1e-5)


def test_normalisation_is_kept_with_the_checkpoint(tmp_path):
    normalization = ScoreNormalization(mean=0.25, deviation=1.5, samples=7)
    normalization.save(tmp_path)
    assert ScoreNormalization.load(tmp_path) == normalization


@pytest.mark.parametrize(("mean", "deviation"), [(math.nan, 1), (0, math.inf), (0, 0), (0, "1")])
def test_a_scale_that_is_no_scale_is_refused(tmp_path, mean, deviation):
    ScoreNormalization(mean, deviation, samples=7).save(tmp_path)
    with pytest.raises(CheckpointError, match="normalisation"):
        ScoreNormalization.load(tmp_path)


def test_a_reward_model_without_normalisation_is_no_valid_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="normalisation"):
        ScoreNormalization.load(tmp_path)
