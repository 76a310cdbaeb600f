"""Gradients against the slow reference, differentiated numerically: no autograd on that side."""

import itertools
import math
from functools import partial

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlhfctl.maths.advantages import (
    group_normalized_advantages,
    leave_one_out_advantages,
    shape_rewards,
)
from rlhfctl.maths.kl import k1, k2, k3
from rlhfctl.maths.log_probs import token_log_probs
from rlhfctl.maths.losses import (
    bradley_terry_loss,
    clipped_surrogate,
    clipped_value_loss,
    importance_ratio,
)
from rlhfctl.maths.masking import length_mask, masked_sum
from tests.present import present
from tests.reference import ppo_reference as reference

STEP = 1e-3
EXAMPLES = settings(max_examples=80, deadline=None)
numbers = st.floats(-6, 6, allow_nan=False)


def gradient(loss, at):
    leaf = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    return float(torch.autograd.grad(loss(leaf), leaf)[0])


def smooth_around(at, *kinks):
    """Keep a numerical derivative off the points where a clip begins."""
    assume(all(abs(at - kink) > 4 * STEP for kink in kinks))


@EXAMPLES
@given(
    st.floats(-40, 3),
    st.floats(-3, 0),
    st.floats(-5, 5),
    st.floats(0.05, 0.5),
    st.none() | st.floats(1.1, 5),
)
def test_the_surrogate(new, old, advantage, epsilon, dual):
    edges = [math.log(1 - epsilon), math.log(1 + epsilon), -20.0, math.log(dual or 1.0)]
    smooth_around(new, *(old + edge for edge in edges))
    assume(abs(advantage) > 1e-3)
    fixed = torch.tensor([old, advantage], dtype=torch.float64)
    found = gradient(
        lambda x: clipped_surrogate(importance_ratio(x, fixed[0]), fixed[1], epsilon, dual).loss,
        new,
    )
    expected = reference.derivative(
        lambda x: reference.surrogate(x, old, advantage, epsilon, dual), new, STEP
    )
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("new", "sign"), [(25.0, -1.0), (-25.0, -1.0), (300.0, 1.0)])
def test_beyond_a_log_ratio_of_20_the_gradient_is_0_and_not_infinite(new, sign):
    fixed = torch.tensor([0.0, sign], dtype=torch.float64)
    found = gradient(
        lambda x: clipped_surrogate(importance_ratio(x, fixed[0]), fixed[1], 0.2).loss, new
    )
    assert found == 0.0


@EXAMPLES
@given(numbers, numbers, numbers, st.none() | st.floats(0.05, 3))
def test_the_value_loss(value, old, target, clip):
    if clip is not None:
        kinks = [old - clip, old + clip, 2 * target - old - clip, 2 * target - old + clip]
        smooth_around(value, *kinks)
    fixed = torch.tensor([old, target], dtype=torch.float64)
    found = gradient(lambda x: clipped_value_loss(x, fixed[0], fixed[1], clip).loss, value)
    expected = reference.derivative(
        lambda x: reference.value_loss(x, old, target, clip), value, STEP
    )
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


@EXAMPLES
@given(numbers, numbers)
def test_kl_estimators_as_losses(log_prob, ref):
    for ours, theirs in ((k2, reference.k2), (k3, reference.k3)):
        found = gradient(lambda x, f=ours: f(x, torch.tensor(ref, dtype=torch.float64)), log_prob)
        expected = reference.derivative(partial(theirs, reference=ref), log_prob, STEP)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


@EXAMPLES
@given(numbers, numbers, st.floats(0, 3), st.floats(0, 0.4))
def test_the_reward_models_loss(chosen, rejected, margin, smoothing):
    other = torch.tensor(rejected, dtype=torch.float64)
    found = gradient(lambda x: bradley_terry_loss(x, other, margin, smoothing), chosen)
    expected = reference.derivative(
        lambda x: reference.bradley_terry(x, rejected, margin, smoothing), chosen, STEP
    )
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("smoothing", "best"), [(0.1, 2.1972), (0.25, 1.0986)])
def test_a_smoothed_reward_model_is_content_with_a_finite_difference(smoothing, best):
    """The loss is least at d = log((1 - s) / s), the odds that smoothing asserts."""
    other = torch.zeros((), dtype=torch.float64)
    slope = gradient(lambda x: bradley_terry_loss(x, other, 0.0, smoothing), best)
    assert slope == pytest.approx(0.0, abs=1e-5)
    assert gradient(lambda x: bradley_terry_loss(x, other, 0.0, smoothing), best + 0.1) > 1e-3


def test_a_whole_minibatch_from_its_logits():
    """Ragged responses, temperature and dirty padding: the derivative of the token mean by every
    logit. Log-probabilities are worked out in fp32, hence the bound."""
    torch.manual_seed(7)
    lengths, vocabulary, temperature, epsilon = [4, 1, 3], 5, 0.7, 0.2
    tokens, width = sum(lengths), max(lengths) + 2
    logits = torch.randn(tokens, vocabulary, dtype=torch.float64)
    chosen = torch.randint(0, vocabulary, (tokens,))
    old, advantages = torch.randn(2, tokens, dtype=torch.float64) * torch.tensor([[0.3], [1.0]])
    old = old + logits.div(temperature).log_softmax(1).gather(1, chosen[:, None])[:, 0]

    def reference_loss(table):
        losses = []
        for at in range(tokens):
            new = reference.log_softmax(table[at], temperature)[int(chosen[at])]
            losses.append(
                reference.surrogate(new, float(old[at]), float(advantages[at]), epsilon, 3.0)
            )
        return sum(losses) / tokens

    def bumped(at, token, value):
        table = logits.tolist()
        table[at][token] = value
        return reference_loss(table)

    mask = length_mask(torch.tensor(lengths), width)

    def spread(flat):
        return torch.full(mask.shape, 1e4, dtype=flat.dtype).masked_scatter(mask, flat)

    leaf = logits.clone().requires_grad_()
    new = token_log_probs(
        lambda x: x, leaf, chosen, vocabulary, temperature, chunk_elements=2 * vocabulary
    )
    ratio = importance_ratio(spread(new.log_probs), spread(old.float()))
    surrogate = clipped_surrogate(ratio, spread(advantages.float()), epsilon, 3.0)
    loss = masked_sum(surrogate.loss, mask) / tokens
    loss.backward()
    assert loss.item() == pytest.approx(reference_loss(logits.tolist()), abs=1e-6)
    assert bool(surrogate.clipped[mask].any())
    for at in range(tokens):
        for token in range(vocabulary):
            expected = reference.derivative(
                partial(bumped, at, token), float(logits[at, token]), 1e-4
            )
            assert float(present(leaf.grad)[at, token]) == pytest.approx(expected, abs=1e-6)


REFERENCE, SCORES = [0.4, 0.25, 0.2, 0.1, 0.05], [0.0, 0.5, 1.0, 1.5, 2.0]
LOGITS = [0.3, -0.2, 0.1, 0.5, -0.4]


def loss_of(arms, leaf, estimate, beta=0.5):
    """The update's loss on responses of one token, one group, at ratios of 1."""
    new = leaf.log_softmax(0)[arms][:, None]
    old, mask = new.detach(), torch.ones(len(arms), 1, dtype=torch.bool)
    ref = torch.tensor(REFERENCE, dtype=torch.float64).log()[arms][:, None]
    scores = torch.tensor(SCORES, dtype=torch.float64)[arms]
    rewards = shape_rewards(scores, k1(old, ref), mask, beta)
    advantages = estimate(rewards, mask, len(arms)).advantages
    surrogate = clipped_surrogate(importance_ratio(new, old), advantages, 0.2)
    return masked_sum(surrogate.loss, mask) / len(arms)


def penalised(arm, logits, beta=0.5):
    """The whole reward of an arm: its score minus beta times the log-ratio."""
    return SCORES[arm] - beta * (reference.log_softmax(logits, 1.0)[arm] - math.log(REFERENCE[arm]))


@pytest.mark.parametrize(
    ("estimate", "formula"),
    [(leave_one_out_advantages, reference.rloo), (group_normalized_advantages, reference.grpo)],
)
def test_the_policy_gradient_of_a_group_is_that_of_its_papers_advantages(estimate, formula):
    arms = [4, 0, 2, 2]
    leaf = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(loss_of(arms, leaf, estimate), leaf)
    advantages = formula([[penalised(arm, LOGITS)] for arm in arms], len(arms))

    def surrogate_of(at, value):
        logits = [*LOGITS[:at], value, *LOGITS[at + 1 :]]
        table = reference.log_softmax(logits, 1.0)
        return -sum(a[0] * table[arm] for a, arm in zip(advantages, arms, strict=True)) / len(arms)

    for at, logit in enumerate(LOGITS):
        expected = reference.derivative(partial(surrogate_of, at), logit, STEP)
        assert float(found[at]) == pytest.approx(expected, abs=1e-9)


def test_the_mean_gradient_of_rloo_is_that_of_the_penalised_reward():
    """Over all 25 groups of two arms, each as likely as the policy makes it: no bias at all."""
    leaf = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    shares = leaf.detach().softmax(0).tolist()
    mean = torch.zeros(5, dtype=torch.float64)
    for one, two in itertools.product(range(5), repeat=2):
        loss = loss_of([one, two], leaf, leave_one_out_advantages)
        mean -= shares[one] * shares[two] * torch.autograd.grad(loss, leaf)[0]

    def objective(at, value):
        logits = [*LOGITS[:at], value, *LOGITS[at + 1 :]]
        table = reference.log_softmax(logits, 1.0)
        return sum(math.exp(p) * penalised(arm, logits) for arm, p in enumerate(table))

    for at, logit in enumerate(LOGITS):
        expected = reference.derivative(partial(objective, at), logit, STEP)
        assert float(mean[at]) == pytest.approx(expected, abs=1e-8)
