"""Linear layers and LoRA in fp32 on a CPU, with less to multiply slowly and less to copy.

Two things are slow there. torch multiplies fp32 matrices by MKL, which keeps to 256-bit vectors on
processors that are not Intel's; oneDNN, which is in torch too, has no such rule, and is 2.2 times as
fast on a Zen 5 core. And peft's LoRA writes three tensors as large as a layer's output (the product
with B, its scaled copy, the sum), forward and backward, where one would do.

All is computed in fp32; only the order of sums differs, so the last bits.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

SWITCH = "RLHFCTL_FAST_CPU_LAYERS"
_CPU_INFO = Path("/proc/cpuinfo")


@cache
def prefers_onednn() -> bool:
    """Say whether this processor has 512-bit vectors that MKL leaves unused."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and _CPU_INFO.is_file()
        and "AuthenticAMD" in _CPU_INFO.read_text(encoding="utf-8")
    )


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return left [..., K] times right [N, K] transposed, plus bias [N]."""
    if not prefers_onednn():
        return linear(left, right, bias)
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return result


def _rows(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1, tensor.shape[-1])


def _weight_gradient(above: Tensor, states: Tensor) -> Tensor:
    """Return above [M, N] transposed times states [M, K]; oneDNN copies the first factor."""
    if above.shape[1] <= states.shape[1]:
        return _product(above.t(), states.t())
    return _product(states.t(), above.t()).t()


class _Linear(torch.autograd.Function):
    """states [..., K] times weight [N, K] transposed, plus bias [N]."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(states, weight)
        return _product(states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        states, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            _product(above, weight.t()) if wanted[0] else None,
            _weight_gradient(_rows(above), _rows(states)) if wanted[1] else None,
            _rows(above).sum(0) if wanted[2] else None,
        )


def _merging_pays(states: Tensor, weight: Tensor) -> bool:
    """Say whether W + scaling * B A costs fewer operations than the products with A and with B.

    At rank r these are N K r against M (N + K) r, for M rows. Twice over, since a merged weight is
    written and read once more.
    """
    outputs, inputs = weight.shape
    return states.numel() // inputs * (outputs + inputs) > 2 * outputs * inputs


class _LoRA(torch.autograd.Function):
    """states W^T + bias + scaling * states A^T B^T, for a frozen W [N, K], A [r, K] and B [N, r].

    Of many rows, by the merged weight W + scaling * B A, which is made anew in the backward pass
    instead of being kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: float,
    ) -> Tensor:
        ctx.scaling = scaling
        ctx.merged = _merging_pays(states, weight)
        if ctx.merged:
            ctx.save_for_backward(states, weight, down, up)
            return _product(states, torch.addmm(weight, up, down, alpha=scaling), bias)
        inner = _product(_rows(states), down)
        ctx.save_for_backward(states, weight, down, up, inner)
        result = _product(states, weight, bias)
        _rows(result).addmm_(inner, up.t(), alpha=scaling)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, down, up, *rest = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        rows = _rows(above)
        scaled = _product(rows, up.t()) * ctx.scaling
        inner = rest[0] if rest else _product(_rows(states), down)
        below = None
        if wanted[0] and ctx.merged:
            below = _product(above, torch.addmm(weight, up, down, alpha=ctx.scaling).t())
        elif wanted[0]:
            below = _product(above, weight.t())
            _rows(below).addmm_(scaled, down)
        return (
            below,
            None,
            None,
            _weight_gradient(scaled, _rows(states)) if wanted[3] else None,
            _weight_gradient(rows, inner) * ctx.scaling if wanted[4] else None,
            None,
        )


def _plain(*tensors: Tensor) -> bool:
    """Say whether all are fp32 on a CPU, and nothing casts them."""
    return not torch.is_autocast_enabled("cpu") and all(
        tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in tensors
    )


class CPULinear(torch.nn.Linear):
    """A linear layer by `_Linear`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        """Return input [..., K] times the weight transposed, plus the bias."""
        if not _plain(input, self.weight):
            return super().forward(input)
        result: Tensor = _Linear.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return result


class CPULoRA(lora.Linear):  # type: ignore[misc]
    """peft's LoRA on a linear layer, by `_LoRA` where one plain adapter is active."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the layer's output [..., N] with that of its active adapter."""
        if args or kwargs or not self._is_simple(x):
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        name, base = self.active_adapters[0], self.base_layer
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        joined: Tensor = _LoRA.apply(  # type: ignore[no-untyped-call]
            x, base.weight, base.bias, down, up, self.scaling[name]
        )
        return joined

    def _is_simple(self, x: Tensor) -> bool:
        name = self.active_adapters[0]
        return (
            len(self.active_adapters) == 1
            and name in self.lora_A
            and name not in self.lora_variant
            and not (self.disable_adapters or self.merged or self.lora_bias[name])
            and isinstance(self.lora_dropout[name], torch.nn.Identity)
            and not self.base_layer.weight.requires_grad
            and _plain(x, self.base_layer.weight, self.lora_A[name].weight)
        )


def use_fast_cpu_layers(model: torch.nn.Module) -> None:
    """Let a model's layers compute as above where they lie on a CPU; its weights stay as they are.

    `RLHFCTL_FAST_CPU_LAYERS=0` leaves torch's and peft's own layers in place.
    """
    if os.environ.get(SWITCH) == "0":
        return
    for module in model.modules():
        if type(module) is torch.nn.Linear and prefers_onednn():
            module.__class__ = CPULinear
        elif type(module) is lora.Linear and isinstance(module.base_layer, torch.nn.Linear):
            module.__class__ = CPULoRA
