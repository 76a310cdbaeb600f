"""Sampling from one uniform number per token, so that episodes are independent of their batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Seed = tuple[int, ...]
"""Seed of one episode's random numbers, such as (seed, rollout, episode)."""


def uniform_numbers(seeds: Sequence[Seed], width: int) -> Tensor:
    """Return uniform numbers in [0, 1), [B, width], float64; each row depends on its seed only.

    Args:
        seeds: [B], tuples of non-negative integers.
        width: Numbers per row.
    """
    rows = [np.random.default_rng(seed).random(width) for seed in seeds]
    return torch.from_numpy(np.stack(rows))


def inverse_cdf(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """Return the first token, [B], whose cumulative probability exceeds the uniform number.

    The sum is in float64: in fp32 a sum over a vocabulary of 100,000 would lose the rarest tokens.
    Tokens with probability 0 are never sampled. A row with NaN or +inf among its logits has no
    distribution; it gets V.

    Args:
        logits: [B, V].
        uniforms: [B], in [0, 1).
        temperature: Divides the logits.
    """
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).double().cumsum(dim=-1)
    thresholds = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, thresholds, right=True).squeeze(-1)


def first_maximum(logits: Tensor) -> Tensor:
    """Return the most probable token, [B], the first of equals; V for a row with NaN or +inf.

    Args:
        logits: [B, V].
    """
    usable = torch.isfinite(logits).any(-1) & ~(torch.isnan(logits) | (logits == torch.inf)).any(-1)
    return torch.where(usable, logits.argmax(dim=-1), logits.shape[-1])
