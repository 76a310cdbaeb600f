"""The recommended setting: the lowest KL among those as good as the best."""

import numpy as np
import pytest

from rlhfctl.sweep.recommend import Candidate, as_good, recommend
from tests.present import present

PROMPTS = ("0 digest",)


def candidate(label, kl, gains, prompts=PROMPTS):
    values = np.asarray(gains, dtype=float)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    mean = float(values.mean())
    return Candidate(label, kl, mean, mean - half, mean + half, list(values), prompts)


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(size=200)


def test_a_significantly_better_setting_is_recommended_at_any_kl(noise):
    recommendation = present(
        recommend([candidate("mild", 1, noise), candidate("bold", 20, noise + 1)], "gold")
    )
    assert recommendation.number == 1
    assert "bold has the highest gain in gold" in recommendation.why
    assert "no setting with a lower KL is as good" in recommendation.why


def test_the_lower_kl_is_recommended_among_equally_good_settings(noise):
    other = np.random.default_rng(1).normal(size=200)
    close = noise + 1 + 0.1 * (other - other.mean())
    settings = [
        candidate("bold", 20, noise + 1.005),
        candidate("mild", 3, close),
        candidate("idle", 0, noise),
    ]
    recommendation = present(recommend(settings, "gold reward"))
    assert recommendation.number == 1
    assert "lowest KL (3 nats" in recommendation.why
    assert "paired by prompt" in recommendation.why
    assert "with bold at 20 nats" in recommendation.why


def test_pairing_by_prompt_separates_settings_whose_cis_overlap(noise):
    best, worse = candidate("best", 5, noise + 0.1), candidate("worse", 1, noise)
    assert best.low < worse.high
    assert not as_good(worse, best)
    elsewhere = candidate("worse", 1, noise, ("0 other prompts",))
    assert as_good(elsewhere, best)
    assert "their CIs overlap" in present(recommend([elsewhere, best], "gold")).why


def test_disjoint_cis_decide_without_prompts():
    best, worse = Candidate("best", 9, 2.0, 1.5, 2.5), Candidate("worse", 1, 1.0, 0.6, 1.4)
    assert present(recommend([worse, best], "gold")).number == 1


def test_a_setting_not_better_than_sft_is_flagged(noise):
    recommendation = present(recommend([candidate("one", 3, noise - noise.mean())], "gold"))
    assert "but it is not significantly better than SFT" in recommendation.why


def test_no_candidates_give_no_recommendation():
    assert recommend([], "gold") is None
