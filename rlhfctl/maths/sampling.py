"""Sampling by one uniform number a token, so that an episode depends on nobody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Seed = tuple[int, ...]
"""What an episode's random numbers come from, such as (seed, rollout, episode)."""


def uniform_numbers(seeds: Sequence[Seed], width: int) -> Tensor:
    """Return numbers of [0, 1), [B, width] in float64; each row from its own seed alone.

    Args:
        seeds: B of them, each of whole numbers of at least 0.
        width: Numbers a row.
    """
    rows = [np.random.default_rng(seed).random(width) for seed in seeds]
    return torch.from_numpy(np.stack(rows))


def inverse_cdf(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """Return the token [B] at which the cumulated softmax first exceeds the uniform number.

    It is cumulated in float64: in fp32 the sum over a vocabulary of 100,000 would lose the
    rarest tokens. A token of probability 0 is never taken.

    Args:
        logits: [B, V].
        uniforms: [B] of [0, 1).
        temperature: Divides the logits.
    """
    cumulated = torch.softmax(logits.float() / temperature, dim=-1).double().cumsum(dim=-1)
    wanted = uniforms[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, wanted, right=True).squeeze(-1)
