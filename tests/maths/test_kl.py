"""KL estimators against the exact divergence of a categorical, and the controller."""

import pytest
import torch

from rlhfctl.maths.kl import adapt_beta, k1, k2, k3

POLICY = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
REFERENCE = torch.tensor([0.25, 0.25, 0.3, 0.2], dtype=torch.float64)


@pytest.mark.parametrize(
    ("r", "expected"), [(0.5, 0.106531), (-0.5, 0.148721), (2, 1.135335), (-2, 4.389056)]
)
def test_k3_has_its_golden_values(r, expected):
    assert k3(torch.tensor(float(r)), torch.tensor(0.0)).item() == pytest.approx(expected, abs=1e-6)


def test_k3_keeps_small_differences_in_single_precision():
    assert k3(torch.tensor(1e-4), torch.tensor(0.0)).item() == pytest.approx(5e-9, rel=0.01)


@pytest.mark.parametrize("estimator", [k1, k3])
def test_k1_and_k3_are_unbiased(estimator):
    exact = (POLICY * (POLICY / REFERENCE).log()).sum()
    expected = (POLICY * estimator(POLICY.log(), REFERENCE.log())).sum()
    torch.testing.assert_close(expected, exact)


def reward_gradient(estimator, logits):
    """The exact gradient of the expected penalty, the penalty itself held fixed."""
    log_policy = logits.log_softmax(0)
    penalty = estimator(log_policy, REFERENCE.log()).detach()
    return torch.autograd.grad((log_policy.exp() * penalty).sum(), logits)[0]


def test_only_k1_in_the_reward_has_the_gradient_of_the_divergence():
    logits = REFERENCE.log().clone() + torch.tensor([0.03, -0.02, 0.05, -0.04])
    logits.requires_grad_()
    log_policy = logits.log_softmax(0)
    divergence = (log_policy.exp() * (log_policy - REFERENCE.log())).sum()
    exact = torch.autograd.grad(divergence, logits)[0]
    torch.testing.assert_close(reward_gradient(k1, logits), exact, atol=1e-12, rtol=1e-9)
    for other in (k2, k3):
        assert reward_gradient(other, logits).norm() < 0.2 * exact.norm()


@pytest.mark.parametrize(
    ("kl", "beta"), [(3, 0.148464), (6.6, 0.150768), (7.2, 0.151536), (60, 0.151536)]
)
def test_the_controller_moves_beta_as_ziegler_does(kl, beta):
    moved = adapt_beta(0.15, kl, target=6, episodes=512, horizon=10_000)
    assert moved == pytest.approx(beta, abs=1e-6)
