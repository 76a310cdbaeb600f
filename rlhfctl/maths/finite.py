"""Detection of NaN and infinite numbers in many tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_CHECKED = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with a NaN or an infinite number; None if there is none.

    Extremes propagate NaN and need no copy of a tensor. All tensors are read back in one transfer.

    Args:
        tensors: Name -> tensor of any shape, on one device; integers and 8-bit floats are left out.
    """
    names, extremes = [], []
    for name, tensor in tensors.items():
        if tensor.dtype in _CHECKED and tensor.numel():
            names.append(name)
            extremes.append(torch.stack(tensor.detach().aminmax()).double())
    if not names:
        return None
    finite = torch.isfinite(torch.stack(extremes)).all(dim=1).tolist()
    return next((name for name, fine in zip(names, finite, strict=True) if not fine), None)
