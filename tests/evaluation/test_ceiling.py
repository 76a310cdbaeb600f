"""The ceiling that disagreement puts on accuracy."""

import numpy as np
import pytest

from rlhfctl.evaluation.ceiling import above_ceiling, accuracy_ceiling, annotator_accuracy
from rlhfctl.evaluation.intervals import Interval
from rlhfctl.results.estimate import Estimate
from tests.present import present


@pytest.mark.parametrize("accuracy", [0.5, 0.6, 0.755, 0.832, 1.0])
def test_it_undoes_the_agreement_of_two_annotators(accuracy):
    agreement = accuracy**2 + (1 - accuracy) ** 2
    assert annotator_accuracy(agreement) == pytest.approx(accuracy)


def test_known_values():
    assert annotator_accuracy(0.72) == pytest.approx(0.832, abs=5e-4)
    assert annotator_accuracy(0.63) == pytest.approx(0.755, abs=5e-4)
    assert annotator_accuracy(0.3) == 0.5


def test_no_model_beats_it_however_hard_single_pairs_are():
    rng = np.random.default_rng(0)
    for shape in (0.3, 1.0, 5.0):
        preferences = rng.beta(shape, shape, 10_000)
        agreement = float(np.mean(preferences**2 + (1 - preferences) ** 2))
        assert np.maximum(preferences, 1 - preferences).mean() <= annotator_accuracy(agreement)


def test_only_a_model_above_all_of_it_is_told_of():
    ceiling = accuracy_ceiling(Interval(0.726, 0.70, 0.75))
    assert above_ceiling(Estimate(0.83, 0.80, 0.86), ceiling) is None
    assert above_ceiling(Estimate(0.86, ceiling.high, 0.9), ceiling) is None
    message = present(above_ceiling(Estimate(0.93, 0.90, 0.96), ceiling))
    assert "93.0%" in message
    assert "83.6%" in message


@pytest.mark.parametrize("wrong", [-0.1, 1.1])
def test_what_is_no_share_is_refused(wrong):
    with pytest.raises(ValueError, match="between 0 and 1"):
        annotator_accuracy(wrong)
