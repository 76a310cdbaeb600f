"""Rewards, GAE and returns: golden values computed by hand, and the loops of the reference."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhfctl.maths.advantages import (
    batch_mean_advantages,
    generalized_advantages,
    shape_rewards,
)
from rlhfctl.maths.kl import k1
from rlhfctl.maths.masking import length_mask, whiten
from tests.reference import ppo_reference as reference

LOG_PROBS = torch.tensor([[-1, -0.5, -2, -0.1], [-0.7, -0.2, 0, 0]], dtype=torch.float64)
REFERENCE = torch.tensor([[-1.2, -0.4, -1, -0.3], [-0.5, -0.9, 0, 0]], dtype=torch.float64)
VALUES = torch.tensor([[0.5, 0.4, 0.3, 0.2], [0.1, 0.6, 9, 9]], dtype=torch.float64)
MASK = length_mask(torch.tensor([4, 2]), 4)
SCORES = torch.tensor([1.0, -0.5], dtype=torch.float64)


def close(actual, expected, atol=1e-6):
    torch.testing.assert_close(
        actual, torch.tensor(expected, dtype=actual.dtype), atol=atol, rtol=0
    )


def golden_rewards():
    return shape_rewards(SCORES, k1(LOG_PROBS, REFERENCE), MASK, beta=0.1)


def test_rewards_are_kl_penalties_with_the_score_at_the_last_response_token():
    close(golden_rewards(), [[-0.02, 0.01, 0.1, 0.98], [0.02, -0.57, 0, 0]])


@pytest.mark.parametrize(
    ("lam", "expected"),
    [
        (0.95, [[0.4632525, 0.61395, 0.741, 0.78], [-0.5915, -1.17, 0, 0]]),
        (1.0, [[0.57, 0.69, 0.78, 0.78], [-0.65, -1.17, 0, 0]]),
        (0.0, [[-0.12, -0.09, 0, 0.78], [0.52, -1.17, 0, 0]]),
    ],
)
def test_advantages_have_their_golden_values_and_ignore_values_past_the_end(lam, expected):
    advantages, returns = generalized_advantages(golden_rewards(), VALUES, MASK, 1.0, lam)
    close(advantages, expected)
    torch.testing.assert_close(returns, torch.where(MASK, advantages + VALUES, 0.0))


def test_nan_in_masked_slots_reaches_nothing():
    values = torch.where(MASK, VALUES, float("nan"))
    rewards = torch.where(MASK, golden_rewards(), float("nan"))
    advantages, returns = generalized_advantages(rewards, values, MASK, 1.0, 0.95)
    assert torch.isfinite(advantages).all()
    assert torch.isfinite(returns).all()
    close(advantages[1], [-0.5915, -1.17, 0, 0])


def test_whitened_advantages_have_their_golden_values():
    advantages = generalized_advantages(golden_rewards(), VALUES, MASK, 1.0, 0.95).advantages
    close(
        whiten(advantages, MASK),
        [[0.433272, 0.634917, 0.80492, 0.857105], [-0.978068, -1.752146, 0, 0]],
    )


rows = st.lists(
    st.lists(
        st.tuples(*(st.floats(-6, 6, allow_nan=False) for _ in range(3))), min_size=1, max_size=9
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(rows, st.floats(-4, 4), st.floats(0, 1), st.floats(0.5, 1), st.floats(0, 1))
def test_ragged_rows_agree_with_the_reference_loops(ragged, score, beta, gamma, lam):
    width = max(map(len, ragged)) + 2

    def padded(column):
        cells = [[cell[column] for cell in row] for row in ragged]
        return torch.tensor(
            [row + [77.0] * (width - len(row)) for row in cells], dtype=torch.float64
        )

    mask = length_mask(torch.tensor(list(map(len, ragged))), width)
    scores = torch.full((len(ragged),), score, dtype=torch.float64)
    shaped = shape_rewards(scores, k1(padded(0), padded(1)), mask, beta)
    advantages, _ = generalized_advantages(shaped, padded(2), mask, gamma, lam)
    whitened = whiten(advantages, mask)
    expected_rows = []
    for at, row in enumerate(ragged):
        log_probs, refs, values = (list(column) for column in zip(*row, strict=True))
        expected_rewards = reference.rewards(log_probs, refs, score, beta)
        close(shaped[at, : len(row)], expected_rewards)
        expected_rows.append(reference.gae(expected_rewards, values, gamma, lam))
        close(advantages[at, : len(row)], expected_rows[-1])
        assert (advantages[at, len(row) :] == 0).all()
        total = shaped[at].sum() + beta * k1(padded(0), padded(1))[at, : len(row)].sum()
        assert float(total) == pytest.approx(score, abs=1e-9)
    for at, row in enumerate(reference.whiten(expected_rows)):
        close(whitened[at, : len(row)], row, atol=1e-5)


def test_lambda_one_gives_the_sum_of_future_rewards_less_the_value():
    rewards = golden_rewards()
    advantages = generalized_advantages(rewards, VALUES, MASK, 1.0, 1.0).advantages
    future = rewards.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(advantages, torch.where(MASK, future - VALUES, 0.0))


def test_without_a_critic_the_baseline_is_the_mean_return_of_the_batch():
    rewards = torch.tensor([[1.0, 2.0, 4.0], [3.0, math.nan, math.nan]], dtype=torch.float64)
    mask = length_mask(torch.tensor([3, 1]), 3)
    advantages, returns = batch_mean_advantages(rewards, mask, gamma=0.5)
    close(returns, [[3.0, 4.0, 4.0], [3.0, 0, 0]])
    close(advantages, [[0.0, 1.0, 1.0], [0.0, 0, 0]])
    close(batch_mean_advantages(rewards, mask, gamma=1.0).advantages, [[2, 1, -1], [-2, 0, 0]])
