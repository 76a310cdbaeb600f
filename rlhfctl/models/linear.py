"""Faster linear layers and LoRA in fp32 on CPUs.

Two things are slow there. On processors not made by Intel, torch multiplies fp32 matrices with
256-bit vectors only, by MKL; oneDNN, also part of torch, is 2.2 times as fast on a Zen 5 core, and 1.05
times on a Zen 4 core, whose units are 256 bits wide. Small products are faster by MKL.
peft's LoRA writes three tensors of a layer's output size (the product with B, its scaled copy and
the sum), forward and backward, where one suffices.

All arithmetic is in fp32. Only the order of summation differs, hence the last bits.
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

from rlhfctl.models.elementwise import faster
from rlhfctl.models.precision import is_eager_cpu_float32

SWITCH = "RLHFCTL_FAST_CPU_LAYERS"
_CPU_INFO = Path("/proc/cpuinfo")
_ONEDNN_PAYS = 4_000_000
"""Multiplications of a product from which oneDNN makes up for its 11 microseconds a call."""


@cache
def prefers_onednn() -> bool:
    """Return whether this processor has 512-bit vectors that MKL does not use."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and _CPU_INFO.is_file()
        and "AuthenticAMD" in _CPU_INFO.read_text(encoding="utf-8")
    )


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return left [..., K] times right [N, K] transposed, plus bias [N]."""
    if prefers_onednn() and left.numel() * right.shape[0] >= _ONEDNN_PAYS:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    else:
        result = linear(left, right, bias)
    # A layer's output may be changed in place, which autograd forbids of a view made in a Function.
    whole: Tensor = (
        torch.ops.aten._unsafe_view(result, result.shape) if result._is_view() else result
    )
    return whole


def _rows(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1, tensor.shape[-1])


def _weight_gradient(above: Tensor, states: Tensor) -> Tensor:
    """Return above [M, N] transposed times states [M, K]; oneDNN copies the first factor."""
    if above.shape[1] <= states.shape[1]:
        return _product(above.t(), states.t())
    return _product(states.t(), above.t()).t()


class _Linear(torch.autograd.Function):
    """Linear layer: states [..., K] times weight [N, K] transposed, plus bias [N]."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(states, weight)
        return _product(states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        states, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        return (
            _product(above, weight.t()) if needed[0] else None,
            _weight_gradient(_rows(above), _rows(states)) if needed[1] else None,
            _rows(above).sum(0) if needed[2] else None,
        )


def _merging_pays(states: Tensor, weight: Tensor) -> bool:
    """Return whether W + scaling * B A costs fewer operations than the products with A and with B.

    At rank r and M rows these are N K r and M (N + K) r. The factor 2 accounts for writing and
    reading the merged weight.
    """
    outputs, inputs = weight.shape
    return states.numel() // inputs * (outputs + inputs) > 2 * outputs * inputs


class _LoRA(torch.autograd.Function):
    """states W^T + bias + scaling * states A^T B^T, for a frozen W [N, K], A [r, K] and B [N, r].

    With many rows it uses the merged weight W + scaling * B A, which is recomputed in the backward
    pass rather than stored.
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
        needed = ctx.needs_input_grad
        rows = _rows(above)
        scaled = _product(rows, up.t()) * ctx.scaling
        inner = rest[0] if rest else _product(_rows(states), down)
        below = None
        if needed[0] and ctx.merged:
            below = _product(above, torch.addmm(weight, up, down, alpha=ctx.scaling).t())
        elif needed[0]:
            below = _product(above, weight.t())
            _rows(below).addmm_(scaled, down)
        return (
            below,
            None,
            None,
            _weight_gradient(scaled, _rows(states)) if needed[3] else None,
            _weight_gradient(rows, inner) * ctx.scaling if needed[4] else None,
            None,
        )


class CPULinear(torch.nn.Linear):
    """Linear layer computed by `_Linear`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        """Return input [..., K] times the weight transposed, plus the bias."""
        if not is_eager_cpu_float32(input, self.weight):
            return super().forward(input)
        result: Tensor = _Linear.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return result


class CPULoRA(lora.Linear):  # type: ignore[misc]
    """peft's LoRA on a linear layer, computed by `_LoRA` if one plain adapter is active."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the output [..., N] of the layer with its active adapter."""
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
            and is_eager_cpu_float32(x, self.base_layer.weight, self.lora_A[name].weight)
        )


# Not their subclasses: a router or a grouped projection may compute something else.
_PLAIN_LAYERS = (torch.nn.Linear, CPULinear)


def use_fast_cpu_layers(model: torch.nn.Module) -> None:
    """Replace the classes of a model's layers by the faster ones; weights are unchanged.

    `RLHFCTL_FAST_CPU_LAYERS=0` keeps the layers of torch, peft and transformers.
    """
    if os.environ.get(SWITCH) == "0":
        return
    for module in model.modules():
        if type(module) is torch.nn.Linear and prefers_onednn():
            module.__class__ = CPULinear
        elif type(module) is lora.Linear and type(module.base_layer) in _PLAIN_LAYERS:
            module.__class__ = CPULoRA
        elif (quicker := faster(type(module))) is not None:
            module.__class__ = quicker
