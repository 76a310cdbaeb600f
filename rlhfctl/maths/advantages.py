"""Rewards, advantages and returns from scores and log-probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor


_SMALLEST_DEVIATION = 1e-4
"""Added to a group's deviation, as in TRL's GRPOTrainer: equal scores differ by rounding alone."""


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
    of the batch's responses: GAE at lambda 1 with values 0, so no critic is needed. Whitened over
    the batch's tokens it is REINFORCE++ (Hu et al. 2025, arXiv 2501.03262).

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


def leave_one_out_advantages(rewards: Tensor, mask: Tensor, group_size: int) -> Advantages:
    """Return RLOO's advantages (Ahmadian et al. 2024, arXiv 2402.14740; Kool et al. 2019).

    A response is one action. Its advantage, the same at each of its tokens, is the sum of its
    rewards minus the mean of that sum over the other responses to its prompt.

    Args:
        rewards: [B, R].
        mask: [B, R], True on response tokens, which start each row.
        group_size: Responses per prompt, at least 2; they stand in consecutive rows.

    Returns:
        Advantages before any whitening; returns = the sums, at each token.
    """
    groups = _response_rewards(rewards, mask, group_size)
    others = (groups.sum(dim=1, keepdim=True) - groups) / (group_size - 1)
    return _per_token(groups - others, groups, mask)


def group_normalized_advantages(rewards: Tensor, mask: Tensor, group_size: int) -> Advantages:
    """Return GRPO's advantages with outcome supervision (Shao et al. 2024, arXiv 2402.03300).

    A response's advantage, the same at each of its tokens, is the sum of its rewards minus its
    group's mean of that sum, divided by its group's standard deviation. As in TRL and verl, the
    deviation has n - 1 degrees of freedom, and a small constant is added to it.

    Args:
        rewards: [B, R].
        mask: [B, R], True on response tokens, which start each row.
        group_size: Responses per prompt, at least 2; they stand in consecutive rows.

    Returns:
        Advantages before any whitening; returns = the sums, at each token.
    """
    groups = _response_rewards(rewards, mask, group_size)
    centred = groups - groups.mean(dim=1, keepdim=True)
    deviations = groups.std(dim=1, correction=1, keepdim=True)
    return _per_token(centred / (deviations + _SMALLEST_DEVIATION), groups, mask)


def _response_rewards(rewards: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """Return the sum of each response's rewards, [groups, group_size]."""
    return torch.where(mask, rewards, 0.0).sum(dim=1).view(-1, group_size)


def _per_token(advantages: Tensor, returns: Tensor, mask: Tensor) -> Advantages:
    """Return both [groups, group_size] at each response token, [B, R]."""
    return Advantages(
        torch.where(mask, advantages.reshape(-1, 1), 0.0),
        torch.where(mask, returns.reshape(-1, 1), 0.0),
    )
