"""Per-token estimators of the KL divergence from the reference, and the adaptive KL controller.

Estimators: Schulman 2020, "Approximating KL divergence", http://joschu.net/blog/kl-approx.html;
samples come from the policy and r = log pi(y) - log pi_ref(y). As a penalty in the reward, only k1
has the gradient of KL(pi || pi_ref); the gradients of k2 and k3 nearly vanish near the reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def k1(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Return r, unbiased and of either sign, in nats per token; all [B, R]."""
    return log_probs - reference_log_probs


def k2(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Return r^2 / 2, biased and never negative; as a loss it has the gradient of KL(pi || ref)."""
    return (log_probs - reference_log_probs).square() / 2


def k3(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Return exp(-r) - 1 + r, unbiased and never negative; expm1 keeps small r exact."""
    r = log_probs - reference_log_probs
    return torch.expm1(-r) + r


def adapt_beta(beta: float, kl: float, target: float, episodes: int, horizon: float) -> float:
    """Return beta after one update of the controller of Ziegler et al. 2019, section 2.2.

    Args:
        beta: Current coefficient.
        kl: Mean KL in nats per response, summed over its tokens.
        target: Target of `kl`.
        episodes: Responses since the last update.
        horizon: Time constant in episodes: at the largest error of 0.2, beta changes by a factor of
            e in 5 horizons.
    """
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return beta * (1.0 + error * episodes / horizon)
