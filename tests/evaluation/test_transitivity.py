"""Circles among preferences: planted ones are found, and noise is told from them."""

from itertools import combinations

import numpy as np
import pytest

from rlhfctl.evaluation.transitivity import (
    agreement_with_ties_halved,
    expected_by_noise,
    intransitive_triples,
)
from tests.present import present


def all_pairs(groups, items):
    return [(group, a, b) for group in range(groups) for a, b in combinations(range(items), 2)]


def test_a_circle_is_one_and_an_order_is_none():
    circle = [("p", "a", "b"), ("p", "b", "c"), ("p", "c", "a")]
    found = present(
        intransitive_triples([*circle, *(("q", *pair[1:]) for pair in circle)], [1] * 6, 0)
    )
    assert found.share.value == 1.0
    assert found.triples == 2
    order = [("p", "a", "b"), ("p", "b", "c"), ("p", "a", "c")]
    assert present(intransitive_triples(order, [1, 1, 1], 0)).share.value == 0.0


def test_nothing_is_said_without_three_that_were_compared_with_one_another():
    chain = [("p", "a", "b"), ("p", "b", "c"), ("q", "a", "c")]
    assert intransitive_triples(chain, [1, 1, 0], 0) is None


@pytest.mark.parametrize("error", [0.0, 0.1, 0.3, 0.5])
def test_noise_on_a_true_order_gives_what_is_expected_of_its_agreement(error):
    pairs = all_pairs(1_500, 4)
    wrong = np.random.default_rng(1).random(len(pairs)) < error
    found = present(intransitive_triples(pairs, np.where(wrong, 0.0, 1.0).tolist(), 0))
    agreement = error**2 + (1 - error) ** 2
    assert found.triples == 6_000
    assert found.share.low - 1e-9 <= expected_by_noise(agreement) <= found.share.high + 1e-9


def test_planted_circles_lie_far_above_noise():
    pairs = [(g, a, (a + 1) % 3) for g in range(300) for a in range(3)]
    wrong = np.random.default_rng(2).random(len(pairs)) < 0.2
    found = present(intransitive_triples(pairs, np.where(wrong, 0.0, 1.0).tolist(), 0))
    assert found.share.low > 2 * expected_by_noise(0.8**2 + 0.2**2)


def test_ties_and_vote_shares_count_in_part():
    order = [("p", "a", "b"), ("p", "b", "c"), ("p", "a", "c")]
    assert present(intransitive_triples(order, [0.5, 0.5, 0.5], 0)).share.value == 0.25


@pytest.mark.parametrize(("error", "ties"), [(0.1, 0.0), (0.1, 0.3), (0.3, 0.6)])
def test_ties_raise_the_circles_that_noise_gives_as_their_agreement_says(error, ties):
    """Two labels of each pair on a true order, some of them ties, others wrong."""
    pairs = all_pairs(3_000, 3)
    rng = np.random.default_rng(3)
    drawn = rng.random((2, len(pairs)))
    labels = np.where(drawn < ties, 2, np.where(rng.random(drawn.shape) < error, 1, 0))
    counts = np.stack([(labels == side).sum(axis=0) for side in range(3)], axis=1).astype(float)
    shares = np.array([1.0, 0.0, 0.5])[labels[0]]
    found = present(intransitive_triples(pairs, shares, 0))
    agreement = present(agreement_with_ties_halved(counts[:, :2], counts.sum(axis=1)))
    assert found.share.low - 0.01 <= expected_by_noise(agreement) <= found.share.high + 0.01


def test_without_ties_or_repeats_the_agreement_is_the_plain_one():
    counts = np.array([[3, 0], [1, 1], [1, 0]], dtype=float)
    assert agreement_with_ties_halved(counts, counts.sum(axis=1)) == 3 / 4
    assert agreement_with_ties_halved(counts[2:], counts[2:].sum(axis=1)) is None
