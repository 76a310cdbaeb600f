"""Losses of PPO and the reward model, per token or per comparison, before averaging."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

_LOG_RATIO_BOUND = 20.0


class Clipped(NamedTuple):
    """A loss and the mask of values determined by a clip; both [B, R]."""

    loss: Tensor
    clipped: Tensor


def importance_ratio(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    """Return pi / pi_old per token, [B, R]; log-ratios are clamped to 20, so that exp is finite."""
    return (log_probs - old_log_probs).clamp(-_LOG_RATIO_BOUND, _LOG_RATIO_BOUND).exp()


def truncated_importance_weights(log_probs: Tensor, engine_log_probs: Tensor, cap: float) -> Tensor:
    """Return min(pi_old / pi_engine, cap) per token, [B, R].

    These weights make samples of an engine, whose probabilities differ slightly, stand for samples
    of the policy at collection time (Yao et al. 2025, "Your efficient RL framework secretly brings
    you off-policy RL training"). They multiply the policy loss and have no gradient.

    Args:
        log_probs: [B, R], of the policy at collection time, by the training pass.
        engine_log_probs: [B, R], of the engine that sampled the tokens.
        cap: Largest weight.
    """
    return importance_ratio(log_probs, engine_log_probs).clamp(max=cap)


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, clip_range: float, dual_clip: float | None = None
) -> Clipped:
    """Return max(-A r, -A clip(r, 1 - eps, 1 + eps)) (Schulman et al. 2017, equation 7, negated).

    With `dual_clip` c the loss of a token with A < 0 is at most -c A (Ye et al. 2020, equation 5).

    Args:
        ratio: [B, R], from `importance_ratio`.
        advantages: [B, R].
        clip_range: eps.
        dual_clip: c, above 1; None: no dual clip.
    """
    plain = -advantages * ratio
    bounded = -advantages * ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    loss, clipped = torch.maximum(plain, bounded), bounded > plain
    if dual_clip is not None:
        most = -advantages * dual_clip
        above = (advantages < 0) & (loss > most)
        loss, clipped = torch.where(above, most, loss), clipped | above
    return Clipped(loss, clipped)


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float | None
) -> Clipped:
    """Return 0.5 max((v - R)^2, (clip(v, v_old +- eps) - R)^2), all [B, R].

    As in Ziegler et al. 2019's code. `clip_range` is in units of the normalised score; None: no
    clipping.
    """
    plain = (values - returns).square()
    if clip_range is None:
        return Clipped(0.5 * plain, torch.zeros_like(plain, dtype=torch.bool))
    near_old = old_values + (values - old_values).clamp(-clip_range, clip_range)
    bounded = (near_old - returns).square()
    return Clipped(0.5 * torch.maximum(plain, bounded), bounded > plain)


def bradley_terry_loss(
    chosen: Tensor,
    rejected: Tensor,
    margin: Tensor | float = 0.0,
    smoothing: Tensor | float = 0.0,
) -> Tensor:
    """Return -(1 - s) log sigmoid(d) - s log sigmoid(-d), d = chosen - rejected - margin, all [B].

    Ouyang et al. 2022, equation 1, with Llama 2's margin. s is the probability that the label is
    wrong: one number (label smoothing), or [B], 1 minus the share of votes for the chosen response
    (soft labels). At the optimum sigmoid(d) = 1 - s.
    """
    d = chosen - rejected - margin
    return -(1.0 - smoothing) * logsigmoid(d) - smoothing * logsigmoid(-d)
