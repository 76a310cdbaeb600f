"""Every formula against the slow reference: ragged rows, tails of padding full of NaN and 10,000,
responses of one token, log-ratios of hundreds of nats.

In float64 they agree to 1e-9; in single precision, as PPO runs, to the bound beside each.
"""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlhfctl.maths.advantages import (
    batch_mean_advantages,
    generalized_advantages,
    group_normalized_advantages,
    leave_one_out_advantages,
    shape_rewards,
)
from rlhfctl.maths.ensembles import combine_scores
from rlhfctl.maths.kl import adapt_beta, k1, k2, k3
from rlhfctl.maths.losses import clipped_surrogate, clipped_value_loss, importance_ratio
from rlhfctl.maths.masking import length_mask, masked_mean, masked_variance, whiten
from rlhfctl.maths.statistics import explained_variance
from tests.reference import ppo_reference as reference

EXACT = 1e-9
EXAMPLES = settings(max_examples=80, deadline=None)


def number(bound):
    return st.floats(-bound, bound, allow_nan=False).map(lambda x: x if abs(x) > 1e-6 else 0.0)


def ragged(columns, bound=6.0, longest=9, least=1, most=5):
    """Rows of response tokens, each a tuple of metrics; one-token responses among them."""
    token = st.tuples(*(number(bound) for _ in range(columns)))
    return st.lists(st.lists(token, min_size=1, max_size=longest), min_size=least, max_size=most)


class Padded:
    """Ragged rows as tensors, with dirt in every slot that no token has."""

    def __init__(self, rows, tail, dirt, dtype=torch.float64):
        self.rows, self.dirt, self.dtype = rows, dirt, dtype
        self.width = max(map(len, rows)) + tail
        self.mask = length_mask(torch.tensor(list(map(len, rows))), self.width)

    def column(self, at):
        return torch.tensor(
            [
                [token[at] for token in row] + [self.dirt] * (self.width - len(row))
                for row in self.rows
            ],
            dtype=self.dtype,
        )

    def lists(self, at):
        return [[token[at] for token in row] for row in self.rows]

    def check(self, tensor, expected, bound=EXACT, *, zeros=True):
        """Compare the tokens' metrics, relative to those above 1, and the padding to 0."""
        for at, row in enumerate(expected):
            for t, value in enumerate(row):
                found = float(tensor[at, t])
                assert abs(found - value) <= bound * max(1.0, abs(value)), (at, t, found, value)
        if zeros:
            assert bool((tensor[~self.mask] == 0).all()), "padding must come out as 0"


dirts = st.sampled_from([math.nan, 1e4, -1e4, 0.0])
tails = st.integers(0, 3)


@EXAMPLES
@given(ragged(2, bound=300.0), tails, dirts)
def test_kl_estimators(rows, tail, dirt):
    batch = Padded(rows, tail, dirt)
    for ours, theirs in ((k1, reference.k1), (k2, reference.k2), (k3, reference.k3)):
        found = torch.where(batch.mask, ours(batch.column(0), batch.column(1)), 0.0)
        batch.check(found, [[theirs(p, q) for p, q in row] for row in rows])


@EXAMPLES
@given(ragged(2), tails, dirts, st.lists(number(50.0), min_size=5, max_size=5), st.floats(0, 2))
def test_rewards_have_the_penalty_a_token_and_the_score_at_the_last(rows, tail, dirt, scores, beta):
    for dtype, bound in ((torch.float64, EXACT), (torch.float32, 1e-5)):
        batch = Padded(rows, tail, dirt, dtype)
        given_scores = torch.tensor(scores[: len(rows)], dtype=dtype)
        shaped = shape_rewards(given_scores, k1(batch.column(0), batch.column(1)), batch.mask, beta)
        expected = [
            reference.rewards([p for p, _ in row], [q for _, q in row], score, beta)
            for row, score in zip(rows, scores, strict=False)
        ]
        batch.check(shaped, expected, bound)


@EXAMPLES
@given(ragged(2), tails, dirts, st.floats(0, 1), st.floats(0, 1))
def test_generalised_advantages_and_returns(rows, tail, dirt, gamma, lam):
    for dtype, bound in ((torch.float64, EXACT), (torch.float32, 2e-5)):
        batch = Padded(rows, tail, dirt, dtype)
        advantages, returns = generalized_advantages(
            batch.column(0), batch.column(1), batch.mask, gamma, lam
        )
        expected = [
            reference.gae(rewards, values, gamma, lam)
            for rewards, values in zip(batch.lists(0), batch.lists(1), strict=True)
        ]
        batch.check(advantages, expected, bound)
        sums = [
            [a + v for a, v in zip(row, values, strict=True)]
            for row, values in zip(expected, batch.lists(1), strict=True)
        ]
        batch.check(returns, sums, bound)


@EXAMPLES
@given(ragged(1), tails, dirts, st.floats(0, 1))
def test_advantages_without_a_critic(rows, tail, dirt, gamma):
    for dtype, bound in ((torch.float64, EXACT), (torch.float32, 2e-5)):
        batch = Padded(rows, tail, dirt, dtype)
        advantages, returns = batch_mean_advantages(batch.column(0), batch.mask, gamma)
        expected, to_go = reference.batch_mean(batch.lists(0), gamma)
        batch.check(advantages, expected, bound)
        batch.check(returns, to_go, bound)


@pytest.mark.parametrize(
    ("estimate", "formula"),
    [
        (leave_one_out_advantages, reference.rloo),
        (group_normalized_advantages, reference.grpo),
    ],
)
@EXAMPLES
@given(ragged(1, longest=4, least=12, most=12), tails, dirts, st.integers(2, 4))
def test_advantages_within_the_groups_of_a_batch(estimate, formula, rows, tail, dirt, size):
    batch = Padded(rows, tail, dirt)
    advantages, returns = estimate(batch.column(0), batch.mask, size)
    batch.check(advantages, formula(batch.lists(0), size), 1e-6)
    batch.check(returns, [[sum(row)] * len(row) for row in batch.lists(0)], EXACT)


@EXAMPLES
@given(ragged(1, bound=100.0), tails, dirts, st.booleans())
def test_whitening(rows, tail, dirt, shift):
    batch = Padded(rows, tail, dirt)
    found = whiten(batch.column(0), batch.mask, shift_mean=shift)
    batch.check(found, reference.whiten(batch.lists(0), shift), 1e-6)
    single = Padded(rows, tail, dirt, torch.float32)
    variance = masked_variance(batch.column(0), batch.mask)
    if variance >= 1.0:  # the error of a mean grows with values over their deviation
        found = whiten(single.column(0), single.mask, shift_mean=shift)
        single.check(found, reference.whiten(batch.lists(0), shift), 1e-4)


@EXAMPLES
@given(st.lists(ragged(1, bound=20.0, most=3), min_size=1, max_size=4), tails, dirts)
def test_whitening_over_ranks_is_that_of_all_their_tokens(ranks, tail, dirt):
    """Each rank has padding of its own; what counts is the concatenation of the tokens."""
    whole = Padded([row for rows in ranks for row in rows], tail, dirt)
    found = whiten(whole.column(0), whole.mask)
    expected = reference.whiten_ranks([[[t[0] for t in row] for row in rows] for rows in ranks])
    whole.check(found, [row for rows in expected for row in rows], 1e-6)
    flat = [t[0] for rows in ranks for row in rows for t in row]
    assert float(masked_mean(whole.column(0), whole.mask)) == pytest.approx(
        sum(flat) / len(flat), rel=1e-9, abs=1e-9
    )


@EXAMPLES
@given(
    ragged(3, bound=300.0), tails, dirts, st.floats(0.05, 0.9), st.none() | st.floats(1.01, 10.0)
)
def test_the_surrogate_at_huge_log_ratios_with_and_without_dual_clip(
    rows, tail, dirt, epsilon, dual
):
    batch = Padded(rows, tail, dirt)
    ratio = importance_ratio(batch.column(0), batch.column(1))
    loss = clipped_surrogate(ratio, batch.column(2), epsilon, dual).loss
    expected = [[reference.surrogate(p, q, a, epsilon, dual) for p, q, a in row] for row in rows]
    batch.check(loss, expected, zeros=False)


@EXAMPLES
@given(ragged(3, bound=300.0), tails, dirts, st.none() | st.floats(0.05, 5.0))
def test_the_value_loss(rows, tail, dirt, clip):
    batch = Padded(rows, tail, dirt)
    loss = clipped_value_loss(batch.column(0), batch.column(1), batch.column(2), clip).loss
    expected = [[reference.value_loss(v, old, r, clip) for v, old, r in row] for row in rows]
    batch.check(loss, expected, zeros=False)


@EXAMPLES
@given(ragged(1), st.floats(1e-3, 2), st.floats(0.01, 50), st.floats(10, 1e5))
def test_the_controller_sees_nats_a_response(rows, beta, target, horizon):
    batch = Padded(rows, 0, 0.0)
    kl = float(batch.column(0).sum(dim=1).mean())
    moved = adapt_beta(beta, kl, target, len(rows), horizon)
    expected = reference.controller(beta, batch.lists(0), target, horizon)
    assert moved == pytest.approx(expected, rel=1e-9)


@EXAMPLES
@given(ragged(2), tails, dirts)
def test_explained_variance(rows, tail, dirt):
    batch = Padded(rows, tail, dirt)
    values, returns = batch.column(0), batch.column(1)
    flat = [token for row in rows for token in row]
    assume(float(masked_variance(returns, batch.mask)) > 1e-3)
    expected = reference.explained_variance([v for v, _ in flat], [r for _, r in flat])
    found = explained_variance(values, returns, batch.mask)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


@EXAMPLES
@given(
    st.lists(st.lists(number(9.0), min_size=3, max_size=3), min_size=1, max_size=5),
    st.sampled_from(["mean", "worst", "uncertainty"]),
    st.floats(0, 3),
)
def test_ensembles_of_reward_models(members, rule, penalty):
    scores = torch.tensor(members, dtype=torch.float64)
    found = combine_scores(scores, [], rule, penalty)
    for at in range(3):
        expected = reference.ensemble([row[at] for row in members], rule, penalty)
        assert float(found[at]) == pytest.approx(expected, rel=1e-9, abs=1e-9)
