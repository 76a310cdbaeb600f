"""Divergence from the reference, estimated token by token, and its controller.

Estimators: Schulman 2020, "Approximating KL divergence", http://joschu.net/blog/kl-approx.html;
samples come from the policy and r = log pi(y) - log pi_ref(y). k1 is the one whose penalty in the
reward has the gradient of KL(pi || pi_ref); k2 and k3 all but vanish near the reference there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def k1(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Return r, unbiased and of either sign, in nats a token; all [B, R]."""
    return log_probs - reference_log_probs


def k2(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Return r^2 / 2, biased, never negative; as a loss its gradient is that of KL(pi || ref)."""
    return (log_probs - reference_log_probs).square() / 2


def k3(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Return exp(-r) - 1 + r, unbiased and never negative; expm1 keeps small r exact."""
    r = log_probs - reference_log_probs
    return torch.expm1(-r) + r


def adapt_beta(beta: float, kl: float, target: float, episodes: int, horizon: float) -> float:
    """Return beta after one step of the controller of Ziegler et al. 2019, section 2.2.

    Args:
        beta: The coefficient so far.
        kl: Nats a response: the sum over its tokens, averaged over responses.
        target: The wished `kl`.
        episodes: Responses since the last step.
        horizon: Episodes over which a full error changes beta e-fold per 1 / 0.2.
    """
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return beta * (1.0 + error * episodes / horizon)
