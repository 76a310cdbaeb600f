import numpy as np
import pytest

from rlhfctl.evaluation.intervals import paired_bootstrap_mean
from rlhfctl.evaluation.tax import compare
from rlhfctl.results.io import to_json


def compare_json(*arguments, **options):
    """Return the result as JSON, in which an estimate is flat."""
    return to_json(compare(*arguments, **options))


def rng_values(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(2, 1, n)


def test_differences_are_paired_by_example() -> None:
    base = rng_values(200, 1)
    noise = rng_values(200, 2) / 100
    metrics = compare_json(
        {"base": base, "sft": base + noise, "ppo": base + 2 * noise},
        0,
        metric="loss",
        higher_is_better=False,
    )
    assert metrics["examples"] == 200
    assert metrics["sft_minus_base"] == pytest.approx(noise.mean())
    assert metrics["ppo_minus_sft_high"] - metrics["ppo_minus_sft_low"] < 0.01, "not paired"
    direct = paired_bootstrap_mean(noise, 0)
    assert metrics["sft_minus_base_low"] == pytest.approx(direct.low, abs=1e-9)


def test_a_mean_a_token_weighs_examples_by_their_tokens() -> None:
    metrics = compare_json(
        {"sft": [1.0, 3.0], "ppo": [2.0, 3.0]},
        0,
        metric="loss",
        higher_is_better=False,
        weights=[30, 10],
    )
    assert metrics["sft"] == pytest.approx((30 * 1 + 10 * 3) / 40)
    assert metrics["ppo_minus_sft"] == pytest.approx(30 / 40)


def test_the_interval_of_a_ratio_covers_it_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        tokens = rng.integers(3, 30, 80)
        change = 0.3 + rng.normal(0, 1, 80) / np.sqrt(tokens) + 0.01 * (tokens - 16)
        metrics = compare_json(
            {"sft": np.zeros(80), "ppo": change},
            seed,
            metric="loss",
            higher_is_better=False,
            weights=tokens,
        )
        everyone = np.arange(3, 30)
        truth = ((0.3 + 0.01 * (everyone - 16)) * everyone).sum() / everyone.sum()
        covered += metrics["ppo_minus_sft_low"] <= truth <= metrics["ppo_minus_sft_high"]
    assert 180 <= covered <= 198


def test_only_those_who_stand_trial_are_compared() -> None:
    metrics = compare_json({"sft": [1.0, 2.0]}, 0, metric="accuracy", higher_is_better=True)
    assert metrics == {"metric": "accuracy", "higher_is_better": True, "examples": 2, "sft": 1.5}
    with pytest.raises(ValueError, match="no examples"):
        compare_json({"sft": []}, 0, metric="accuracy", higher_is_better=True)
