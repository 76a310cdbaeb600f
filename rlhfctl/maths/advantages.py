"""Rewards, advantages and returns from scores and log-probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Advantages(NamedTuple):
    """Advantages and returns, both [B, R], 0 where masked."""

    advantages: Tensor
    returns: Tensor


def shape_rewards(scores: Tensor, kl: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Return per-token rewards: -beta * kl_t, plus the score at the last response token.

    Ouyang et al. 2022, equation 2; the score is placed on the EOS itself, not on the pad after it.

    Args:
        scores: [B], normalised and clipped.
        kl: [B, R], per token, in nats.
        mask: [B, R], True on response tokens, which start each row.
        beta: KL coefficient.

    Returns:
        [B, R], 0 where masked.
    """
    rewards = torch.where(mask, -beta * kl, 0.0)
    last = mask.sum(dim=1) - 1
    return rewards.scatter_add(1, last[:, None], scores[:, None].to(rewards.dtype))


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float
) -> Advantages:
    """Return GAE advantages and the returns they imply (Schulman et al. 2016, equation 16).

    The end of a response is terminal: nothing is bootstrapped from beyond it.

    Args:
        rewards: [B, R].
        values: [B, R], V(s_t) read before response token t.
        mask: [B, R], True on response tokens, which start each row.
        gamma: Discount per token.
        gae_lambda: Trade-off between bias (0) and variance (1).

    Returns:
        Advantages before any whitening; returns = advantages + values.
    """
    rewards = torch.where(mask, rewards, 0.0)
    values = torch.where(mask, values, 0.0)
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    deltas = rewards + gamma * following - values
    running = torch.zeros_like(values[:, 0])
    backwards = []
    for t in reversed(range(values.shape[1])):
        running = deltas[:, t] + gamma * gae_lambda * running
        backwards.append(running)
    advantages = torch.where(mask, torch.stack(backwards[::-1], dim=1), 0.0)
    return Advantages(advantages, torch.where(mask, advantages + values, 0.0))


def batch_mean_advantages(rewards: Tensor, mask: Tensor, gamma: float) -> Advantages:
    """Return REINFORCE's advantages with the batch's mean return as baseline (Williams 1992).

    An advantage is the discounted sum of a token's own and later rewards, minus the mean return
    of the batch's responses: GAE at lambda 1 with values 0, so no critic is needed.

    Args:
        rewards: [B, R].
        mask: [B, R], True on response tokens, which start each row.
        gamma: Discount per token.

    Returns:
        Advantages before any whitening; returns = the discounted sums.
    """
    no_values = torch.zeros_like(rewards)
    returns = generalized_advantages(rewards, no_values, mask, gamma, gae_lambda=1.0).returns
    return Advantages(torch.where(mask, returns - returns[:, 0].mean(), 0.0), returns)
