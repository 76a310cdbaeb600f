"""Means, variances and whitening that ignore padding.

Masked slots are replaced, not multiplied by zero: NaN * 0 is NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def length_mask(lengths: Tensor, width: int) -> Tensor:
    """Return [B, width], True at positions before each row's length.

    Args:
        lengths: [B], integers.
        width: Columns of the mask.
    """
    return torch.arange(width, device=lengths.device)[None, :] < lengths[:, None]


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Return the scalar sum of `values` [...] where `mask` [...] is True."""
    return torch.where(mask, values, 0.0).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the scalar mean of `values` [...] where `mask` [...] is True; 0 for an empty mask."""
    return masked_sum(values, mask) / mask.sum().clamp(min=1)


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Return the biased variance (divisor n), so that a single token gives 0 and not NaN."""
    centred = values - masked_mean(values, mask)
    return masked_mean(centred.square(), mask)


def whiten(
    values: Tensor, mask: Tensor, *, shift_mean: bool = True, epsilon: float = 1e-8
) -> Tensor:
    """Scale to variance 1 over the mask and, with `shift_mean`, to mean 0.

    Without `shift_mean` the values are scaled about their mean, which is kept (as in Ziegler et al.
    2019 for rewards). Masked slots become 0.

    Args:
        values: [...].
        mask: [...], True where a value counts.
        shift_mean: Whether the mean becomes 0.
        epsilon: Lower bound of the variance.
    """
    mean = masked_mean(values, mask)
    scaled = (values - mean) * masked_variance(values, mask).clamp(min=epsilon).rsqrt()
    return torch.where(mask, scaled if shift_mean else scaled + mean, 0.0)
