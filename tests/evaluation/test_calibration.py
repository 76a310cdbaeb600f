import math

import numpy as np
import pytest
from numpy.typing import NDArray

from rlhfctl.evaluation.calibration import (
    brier,
    calibration_metrics,
    error_if_calibrated,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from rlhfctl.evaluation.intervals import wilson
from rlhfctl.results.io import to_json
from tests.present import present


def planted(pairs: int, temperature: float, seed: int = 0) -> NDArray[np.float64]:
    """Margins of a model whose logits are `temperature` times those that outcomes are drawn by."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0.0, 1.5, pairs)
    first_wins = generator.random(pairs) < 1 / (1 + np.exp(-logits))
    return temperature * np.where(first_wins, logits, -logits)


def slow_error(margins: list[float], bins: int) -> float:
    """Pair by pair, in plain Python."""
    members: dict[int, list[tuple[float, float]]] = {}
    for margin in margins:
        chance = 1 / (1 + math.exp(-margin))
        favoured = max(chance, 1 - chance)
        right = 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0
        number = next(
            at for at in range(bins) if favoured < 0.5 + (at + 1) / (2 * bins) or at == bins - 1
        )
        members.setdefault(number, []).append((favoured, right))
    return sum(
        abs(sum(right for _, right in part) - sum(favoured for favoured, _ in part))
        for part in members.values()
    ) / len(margins)


@pytest.mark.parametrize("bins", [1, 7, 10, 15])
def test_the_error_is_that_of_a_slow_reference(bins):
    margins = np.append(planted(500, 2.0), [0.0, 0.0, 40.0, -40.0])
    assert expected_calibration_error(margins, bins) == pytest.approx(
        slow_error(margins.tolist(), bins), abs=1e-12
    )


def test_bins_count_every_pair_once_and_a_tie_as_half_right():
    found = reliability([0.0, 0.1, -0.1, 50.0], 10)
    assert [(part.start, part.end, part.pairs) for part in found] == [(0.5, 0.55, 3), (0.95, 1, 1)]
    assert found[0].observed == wilson(1.5, 3)
    assert found[0].predicted == pytest.approx((0.5 + 2 / (1 + math.exp(-0.1))) / 3)


def test_which_response_stands_first_says_nothing_of_the_error():
    margins = planted(300, 1.0)
    right = expected_calibration_error(margins, 1)
    assert right == pytest.approx(
        abs((margins > 0).mean() - (1 / (1 + np.exp(-abs(margins)))).mean())
    )


def test_brier_and_likelihood_have_their_known_values():
    assert brier([0.0]) == 0.25
    assert negative_log_likelihood([0.0]) == pytest.approx(math.log(2))
    # The Bradley-Terry loss at margins 1 and -1.
    assert negative_log_likelihood([1.0]) == pytest.approx(0.313262, abs=5e-7)
    assert negative_log_likelihood([-1.0]) == pytest.approx(1.313262, abs=5e-7)
    assert brier([math.log(3)]) == pytest.approx(1 / 16)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_planted_temperature_is_found_and_undone(temperature):
    metrics = to_json(calibration_metrics(planted(20_000, temperature), 10, seed=0))
    assert metrics["temperature"] == pytest.approx(temperature, rel=0.05)
    assert metrics["ece_scaled"] < 0.015
    if temperature == 1.0:
        assert metrics["ece_if_calibrated_low"] <= metrics["ece"]
        assert metrics["ece"] <= metrics["ece_if_calibrated_high"]
    else:
        assert metrics["ece"] > 5 * metrics["ece_if_calibrated_high"]


def test_the_temperature_is_the_likeliest_whatever_the_unit():
    margins = planted(400, 2.0)
    best = present(fit_temperature(margins))
    for other in (0.98 * best, 1.02 * best):
        assert negative_log_likelihood(margins / best) < negative_log_likelihood(margins / other)
    assert fit_temperature(1e-8 * margins) == pytest.approx(1e-8 * best)
    assert fit_temperature(1e8 * margins) == pytest.approx(1e8 * best)


@pytest.mark.parametrize("margins", [[1.0, 2.0], [-1.0, 0.5], [0.0, 0.0]])
def test_where_no_temperature_is_likeliest_there_is_none(margins):
    assert fit_temperature(margins) is None
    assert "temperature" not in to_json(calibration_metrics(margins, 10, seed=0))


def test_a_calibrated_model_falls_within_what_chance_gives_as_often_as_it_says():
    inside = 0
    for seed in range(60):
        margins = planted(200, 1.0, seed)
        chance = error_if_calibrated(margins, 10, seed)
        inside += chance.low <= expected_calibration_error(margins, 10) <= chance.high
    assert 51 <= inside <= 60


@pytest.mark.parametrize("margins", [[], [float("nan")], [[1.0]]])
def test_margins_that_say_nothing_are_refused(margins):
    with pytest.raises(ValueError, match="margin"):
        reliability(margins, 10)
