"""Optimum of each KL estimator in the reward, by exact expectations: five arms, no sampling.

The optimum of E[score] - beta KL(pi || ref) is pi* ~ ref exp(score / beta). Only k1 finds it.
"""

import pytest
import torch

from rlhfctl.maths.kl import k1, k2, k3
from tests.present import present

REFERENCE = torch.tensor([0.4, 0.25, 0.2, 0.1, 0.05], dtype=torch.float64)
SCORES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0], dtype=torch.float64)
OPTIMA = {
    0.5: ([0.055, 0.093, 0.203, 0.275, 0.374], 0.834),
    1.0: ([0.184, 0.190, 0.250, 0.206, 0.170], 0.218),
}


def optimum(beta):
    return (REFERENCE.log() + SCORES / beta).softmax(0)


def divergence(policy):
    return float((policy * (policy / REFERENCE).log()).sum())


def absolute(log_probs, reference):
    return k1(log_probs, reference).abs()


def policy_gradient(penalty, beta, steps=4000, rate=0.5, bound=1.0):
    """Ascend E[score - beta * penalty], the penalty held fixed as rewards are."""
    logits = REFERENCE.log().clone()
    for _ in range(steps):
        log_policy = logits.log_softmax(0)
        policy = log_policy.exp()
        reward = SCORES - beta * penalty(log_policy, REFERENCE.log())
        gradient = policy * (reward - (policy * reward).sum())
        logits = logits + rate * gradient.clamp(-bound, bound)
    return logits.softmax(0)


def distance(policy, beta):
    return float(0.5 * (policy - optimum(beta)).abs().sum())


@pytest.mark.parametrize("beta", OPTIMA)
def test_the_optimum_has_its_golden_values(beta):
    probabilities, kl = OPTIMA[beta]
    assert optimum(beta).tolist() == pytest.approx(probabilities, abs=6e-4)
    assert divergence(optimum(beta)) == pytest.approx(kl, abs=6e-4)


@pytest.mark.parametrize("beta", OPTIMA)
def test_k1_in_the_reward_finds_the_optimum(beta):
    assert distance(policy_gradient(k1, beta), beta) < 1e-4


@pytest.mark.parametrize(
    ("penalty", "beta", "miss"),
    [(k2, 0.5, 0.152), (k2, 1.0, 0.374), (absolute, 0.5, 0.148), (absolute, 1.0, 0.374)],
)
def test_k2_and_the_absolute_value_miss_it(penalty, beta, miss):
    assert distance(policy_gradient(penalty, beta), beta) == pytest.approx(miss, abs=0.01)


@pytest.mark.parametrize(("beta", "miss"), [(0.5, 0.63), (1.0, 0.79)])
def test_k3_in_the_reward_falls_onto_one_arm(beta, miss):
    """Its penalty on what the policy has left is exponential, and pushes it out for good."""
    policy = policy_gradient(k3, beta, steps=300)
    assert float(policy.max()) > 0.99
    assert distance(policy, beta) == pytest.approx(miss, abs=0.01)


@pytest.mark.parametrize("beta", OPTIMA)
def test_k2_as_a_loss_finds_the_optimum(beta):
    """Its gradient by samples' log-probabilities is that of KL(pi || ref)."""
    logits = REFERENCE.log().clone()
    for _ in range(4000):
        leaf = logits.clone().requires_grad_()
        log_policy = leaf.log_softmax(0)
        policy = log_policy.detach().exp()
        reward = (policy * SCORES * log_policy).sum()
        penalty = (policy * k2(log_policy, REFERENCE.log())).sum()
        (reward - beta * penalty).backward()
        logits = logits + 0.5 * present(leaf.grad)
    assert distance(logits.softmax(0), beta) < 1e-4
