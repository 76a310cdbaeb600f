"""Precision of passes over whole weights, which are in fp32 in every stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rlhfctl.models.device import effective_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from rlhfctl.recipe.schema import ModelSection


def whole_weights_dtype(section: ModelSection) -> torch.dtype | None:
    """Return the dtype to compute in with whole weights in fp32; None: fp32.

    It is bfloat16 or none: whole weights of a recipe in float16 are computed in fp32, whose range
    no gradient leaves.
    """
    return torch.bfloat16 if effective_dtype(section) is torch.bfloat16 else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Return the context in which matrix products are computed in `dtype`.

    Args:
        device: Device of the models.
        dtype: None: products are computed in the weights' dtype, within another autocast too.
    """
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def is_eager_cpu_float32(*tensors: Tensor) -> bool:
    """Return whether all tensors are fp32 on a CPU, without autocast, and nothing is compiled.

    torch compiles the plain operations of transformers and peft better than ours.
    """
    return not (torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")) and all(
        tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in tensors
    )
