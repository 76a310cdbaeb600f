"""RMS norm, gated MLP and rotary embedding with fewer passes over the states, in fp32 on CPUs.

transformers computes these operation by operation. Each operation reads and writes all states, most of
them from beyond the second-level cache, and autograd differentiates each on its own. The functions here
do the same arithmetic with fewer reads, writes and stored tensors; the backward pass overwrites its own
intermediate results. Only the order of operations differs, hence the last bits.

The modules of most architectures of transformers are copies of Llama's. A module is replaced only if its
`forward` is that of Llama's module, instruction by instruction.
"""

from __future__ import annotations

from functools import cache, wraps
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from rlhfctl.models.precision import is_eager_cpu_float32

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def _inverse_rms(states: Tensor, epsilon: float) -> Tensor:
    """Return 1 / sqrt(mean of squares + epsilon), [..., 1]."""
    norms = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
    inverse: Tensor = norms.square_().div_(states.shape[-1]).add_(epsilon).rsqrt_()
    return inverse


class _RMSNorm(torch.autograd.Function):
    """states [..., H] / sqrt(mean of squares + epsilon) * weight [H]."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        inverse = _inverse_rms(states, epsilon)
        normed = states * inverse
        ctx.save_for_backward(normed, inverse, weight)
        return normed * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        normed, inverse, weight = ctx.saved_tensors
        product = above * normed
        of_weight = product.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        of_states = None
        if ctx.needs_input_grad[0]:
            share = product.mul_(weight).sum(-1, keepdim=True).div_(-normed.shape[-1])
            of_states = torch.mul(above, weight, out=product).addcmul_(normed, share).mul_(inverse)
        return of_states, of_weight, None


def rms_norm(states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Return states [..., H] / sqrt(mean of squares + epsilon) * weight [H]."""
    if not torch.is_grad_enabled():
        return torch.mul(states, _inverse_rms(states, epsilon)).mul_(weight)
    result: Tensor = _RMSNorm.apply(states, weight, epsilon)  # type: ignore[no-untyped-call]
    return result


class _Gate(torch.autograd.Function):
    """silu(gate) * up, all of one shape."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        opened = silu(gate)
        ctx.save_for_backward(gate, up, opened)
        return opened * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, Tensor]:
        gate, up, opened = ctx.saved_tensors
        of_gate = above * up
        torch.ops.aten.silu_backward(of_gate, gate, grad_input=of_gate)
        return of_gate, above * opened


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up, all of one shape."""
    if not torch.is_grad_enabled():
        return silu(gate).mul_(up)
    result: Tensor = _Gate.apply(gate, up)  # type: ignore[no-untyped-call]
    return result


class _Rotation(torch.autograd.Function):
    """Rotary embedding of heads [B, heads, T, D] by cos and sin [B or 1, 1, T, D].

    Both halves of cos are alike, and those of sin, as `apply_rotary_pos_emb` is called with.
    """

    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(heads, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _rotate(above, cos, sin, -1), None, None


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    half = heads.shape[-1] // 2
    result = heads * cos
    # The gradient has sin's halves exchanged.
    first, second = sin[..., :half], sin[..., half:]
    if sign < 0:
        first, second = second, first
    result[..., :half].addcmul_(heads[..., half:], first, value=-sign)
    result[..., half:].addcmul_(heads[..., :half], second, value=sign)
    return result


def rotary(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
) -> tuple[Tensor, Tensor]:
    """Return queries and keys with rotary embeddings, as transformers' `apply_rotary_pos_emb` does.

    Args:
        q: Queries, [B, heads, T, D].
        k: Keys, as the queries, but for the number of heads.
        cos: [B or 1, T, D].
        sin: As `cos`.
        unsqueeze_dim: Dimension of the heads in `q` and `k`.
    """
    if cos.requires_grad or sin.requires_grad or not is_eager_cpu_float32(q, k, cos, sin):
        plain: tuple[Tensor, Tensor] = _llama().apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim)
        return plain
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    if not torch.is_grad_enabled():
        return _rotate(q, cos, sin, 1), _rotate(k, cos, sin, 1)
    apply = cast("Callable[..., Tensor]", _Rotation.apply)
    return apply(q, cos, sin), apply(k, cos, sin)


def _norm_forward(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(self: Any, hidden_states: Tensor) -> Tensor:
        if not is_eager_cpu_float32(hidden_states, self.weight):
            return plain(self, hidden_states)
        return rms_norm(hidden_states, self.weight, self.variance_epsilon)

    return forward


def _mlp_forward(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    from transformers.activations import SiLUActivation

    def forward(self: Any, x: Tensor) -> Tensor:
        if type(self.act_fn) not in (SiLUActivation, torch.nn.SiLU):
            return plain(self, x)
        gate, up = self.gate_proj(x), self.up_proj(x)
        inner = gated(gate, up) if is_eager_cpu_float32(gate, up) else self.act_fn(gate) * up
        result: Tensor = self.down_proj(inner)
        return result

    return forward


def _attention_forward(plain: Callable[..., Any]) -> Callable[..., Any]:
    eager = _with_global(plain, _ROTARY, rotary)

    @wraps(plain)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        # torch finds a function's globals by its module's name, so it cannot compile the copy.
        return (plain if torch.compiler.is_compiling() else eager)(self, *args, **kwargs)

    return forward


def faster(plain: type) -> type | None:
    """Return a subclass of a module's class that computes the same by the functions above.

    Returns:
        A class of the same name; None if the class is no norm, MLP or attention like Llama's.
    """
    return _faster(plain)


@cache
def _faster(plain: Any) -> type | None:
    llama = _llama()
    forward: Any = getattr(plain, "forward", None)
    if _is_same(forward, llama.LlamaRMSNorm.forward):
        replacement = _norm_forward(forward)
    elif _is_same(forward, llama.LlamaMLP.forward):
        replacement = _mlp_forward(forward)
    elif _rotates(forward):
        replacement = _attention_forward(forward)
    else:
        return None
    # Other code finds modules by their class's name, such as FSDP the layers to shard.
    members = {"forward": replacement, "__module__": plain.__module__, "__doc__": plain.__doc__}
    return type(plain.__name__, (plain,), members)


def _with_global(function: Any, name: str, value: Any) -> FunctionType:
    """Return a copy of a function that finds another object under a global name."""
    names, defaults = function.__globals__ | {name: value}, function.__defaults__
    copy = FunctionType(function.__code__, names, function.__name__, defaults, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_ROTARY = "apply_rotary_pos_emb"


def _rotates(forward: Callable[..., Any]) -> bool:
    """Return whether a `forward` calls a function that is Llama's `apply_rotary_pos_emb`."""
    if not isinstance(forward, FunctionType) or _ROTARY not in forward.__code__.co_names:
        return False
    llama, function = _llama(), forward.__globals__.get(_ROTARY)
    if not isinstance(function, FunctionType):
        return False
    half = function.__globals__.get("rotate_half")
    return _is_same(function, llama.apply_rotary_pos_emb) and _is_same(half, llama.rotate_half)


def _is_same(function: Any, other: FunctionType) -> bool:
    """Return whether two functions consist of the same instructions, names and constants."""
    if not isinstance(function, FunctionType) or function.__closure__:
        return False
    code, reference = function.__code__, other.__code__
    return (
        code.co_code == reference.co_code
        and code.co_names == reference.co_names
        and code.co_varnames == reference.co_varnames
        and _constants(function) == _constants(other)
    )


def _constants(function: FunctionType) -> list[Any]:
    return [c for c in function.__code__.co_consts if c != function.__doc__]


def _llama() -> Any:
    from transformers.models.llama import modeling_llama

    return modeling_llama
