"""The recommended setting: the gentlest of those that are as good as the best."""

import numpy as np
import pytest

from rlhfctl.sweep.recommend import Candidate, as_good, recommend

PROMPTS = ("0 digest",)


def candidate(label, kl, gains, prompts=PROMPTS):
    each = np.asarray(gains, dtype=float)
    half = 1.96 * each.std(ddof=1) / np.sqrt(len(each))
    mean = float(each.mean())
    return Candidate(label, kl, mean, mean - half, mean + half, list(each), prompts)


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(size=200)


def test_a_setting_that_is_clearly_better_is_taken_whatever_its_kl(noise):
    found = recommend([candidate("mild", 1, noise), candidate("bold", 20, noise + 1)], "gold")
    assert found.number == 1
    assert "bold has the highest gain in gold" in found.why
    assert "no setting of less KL is as good" in found.why


def test_of_two_as_good_the_gentler_is_taken(noise):
    other = np.random.default_rng(1).normal(size=200)
    close = noise + 1 + 0.1 * (other - other.mean())
    settings = [
        candidate("bold", 20, noise + 1.005),
        candidate("mild", 3, close),
        candidate("idle", 0, noise),
    ]
    found = recommend(settings, "gold reward")
    assert found.number == 1
    assert "smallest KL (3 nats" in found.why
    assert "paired by prompt" in found.why
    assert "of bold at 20 nats" in found.why


def test_pairs_tell_apart_what_intervals_cannot(noise):
    best, worse = candidate("best", 5, noise + 0.1), candidate("worse", 1, noise)
    assert best.low < worse.high
    assert not as_good(worse, best)
    elsewhere = candidate("worse", 1, noise, ("0 other prompts",))
    assert as_good(elsewhere, best)
    assert "their intervals overlap" in recommend([elsewhere, best], "gold").why


def test_intervals_that_do_not_overlap_decide_where_prompts_are_unknown():
    best, worse = Candidate("best", 9, 2.0, 1.5, 2.5), Candidate("worse", 1, 1.0, 0.6, 1.4)
    assert recommend([worse, best], "gold").number == 1


def test_what_is_not_better_than_sft_is_said(noise):
    found = recommend([candidate("one", 3, noise - noise.mean())], "gold")
    assert "but it is not significantly better than SFT" in found.why


def test_nothing_is_recommended_of_nothing():
    assert recommend([], "gold") is None
