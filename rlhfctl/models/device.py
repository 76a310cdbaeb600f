"""Device of a process, and the precision that it computes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from rlhfctl.recipe.schema import ModelSection


def device() -> torch.device:
    """Return the device of this process: its CUDA GPU, else the CPU."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else (torch.device("cpu"))
    )


def effective_quantization(section: ModelSection) -> str:
    """Return `none`, `4bit` or `8bit`; `auto` is 4-bit on a CUDA GPU."""
    if section.quantization == "auto":
        return "4bit" if torch.cuda.is_available() else "none"
    return section.quantization


def effective_dtype(section: ModelSection) -> torch.dtype:
    """Return the base's dtype; `auto` is bfloat16 on CUDA and float32 on CPU."""
    if section.dtype == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    dtype: torch.dtype = getattr(torch, section.dtype)
    return dtype
