"""Linear layers that take the memory of bitsandbytes' quantised ones, without any weights.

NF4 with double quantization holds half a byte per weight, one byte of absmax per block of 64, and a
float32 per 256 of those (Dettmers et al. 2023, QLoRA, section 3). LLM.int8 (Dettmers et al. 2022)
holds one byte per weight and a float32 per row. Forward and backward passes write the whole weight
in the dtype of the states for the length of one product, as the default kernels of
`bitsandbytes.backends` do; a fused kernel of a GPU takes less.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import bitsandbytes
import torch
from torch import Tensor
from torch.nn.functional import linear

from rlhfctl.models.base import HEAD_MODULES

_BLOCK, _NESTED_BLOCK = 64, 256


def packed_bytes(weights: int, bits: int, rows: int) -> int:
    """Return the bytes of one layer's quantised weights.

    Args:
        weights: Number of weights.
        bits: 4 or 8.
        rows: Output features.
    """
    if bits == 8:
        return weights + 4 * rows
    blocks = -(-weights // _BLOCK)
    return -(-weights // 2) + blocks + 4 * -(-blocks // _NESTED_BLOCK)


class _Product(torch.autograd.Function):
    """Product of states [..., K] with a weight [N, K] that is unpacked for it."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, packed: Tensor, rows: int, bias: Tensor | None) -> Tensor:
        ctx.shape = (rows, states.shape[-1])
        ctx.save_for_backward(packed)
        return linear(states, _unpacked(states, ctx.shape), bias)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        below = above @ _unpacked(above, ctx.shape) if ctx.needs_input_grad[0] else None
        return below, None, None, None


def _unpacked(like: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return an unpacked weight [N, K]; its blocks' scales, in fp32, are there with it."""
    scales = torch.empty(shape[0] * shape[1] // _BLOCK, dtype=torch.float32)
    weight = torch.empty(shape, dtype=like.dtype)
    del scales
    return weight


def _prepare(layer: Any, source: torch.nn.Linear, bits: int, dtype: torch.dtype) -> None:
    torch.nn.Module.__init__(layer)
    layer.in_features, layer.out_features = source.in_features, source.out_features
    layer.compute_dtype = dtype
    size = packed_bytes(source.weight.numel(), bits, source.out_features)
    layer.weight = torch.nn.Parameter(
        torch.empty(size, dtype=torch.uint8, device="meta"), requires_grad=False
    )
    layer.bias = source.bias


class _Linear4Bits(bitsandbytes.nn.Linear4bit):  # type: ignore[misc,name-defined]
    """peft gives it the adapter of a 4-bit layer."""

    def __init__(self, source: torch.nn.Linear, dtype: torch.dtype) -> None:
        _prepare(self, source, 4, dtype)
        self.weight.compress_statistics, self.weight.quant_type = True, "nf4"

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [..., N] in the dtype of the states."""
        states = x.to(self.compute_dtype)
        product: Tensor = _Product.apply(states, self.weight, self.out_features, self.bias)  # type: ignore[no-untyped-call]
        return product.to(x.dtype)


class _Linear8Bits(bitsandbytes.nn.Linear8bitLt):  # type: ignore[misc,name-defined]
    """peft gives it the adapter of an 8-bit layer; the states are kept in 16 bits for it."""

    def __init__(self, source: torch.nn.Linear, dtype: torch.dtype) -> None:
        _prepare(self, source, 8, dtype)
        self.state = SimpleNamespace(
            has_fp16_weights=False, threshold=6.0, memory_efficient_backward=False
        )
        self.index = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [..., N] in the dtype of the states."""
        product: Tensor = _Product.apply(x, self.weight, self.out_features, self.bias)  # type: ignore[no-untyped-call]
        return product


def pack(model: Any, kind: str, dtype: torch.dtype) -> None:
    """Replace the linear layers that bitsandbytes would quantise, all but the heads.

    Args:
        model: Model on the meta device.
        kind: `4bit` or `8bit`.
        dtype: Dtype of the passes.
    """
    layer_class = _Linear4Bits if kind == "4bit" else _Linear8Bits
    for name, module in list(model.named_modules()):
        for child_name, child in list(module.named_children()):
            full_name = f"{name}.{child_name}"
            if type(child) is torch.nn.Linear and not any(
                part in HEAD_MODULES for part in full_name.split(".")
            ):
                setattr(module, child_name, layer_class(child, dtype))
    model.is_loaded_in_4bit = kind == "4bit"
    model.is_loaded_in_8bit = kind == "8bit"
