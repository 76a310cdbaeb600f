"""A model's frozen layers spread over processes by DeepSpeed's ZeRO-3, without its engine.

DeepSpeed cuts each weight into shares and gathers them; its engine, which wraps one model with one
optimiser and expects a forward and a backward pass in turn, cannot hold roles that take turns on one
base. So this file says when a layer is gathered: when it computes, and again when a backward pass
asks for one of its weights. One layer at a time is whole; each process must run the same passes.

`all_gather_coalesced` and `partition` are what DeepSpeed puts on a weight, and its engine uses. Its
documented `GatheredParameters` waits for the last of several transfers alone, which is too early
where they overtake one another, as gloo's may.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.graph import saved_tensors_hooks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

_LAYERS = "_rlhfctl_layers"


@dataclass(frozen=True)
class _View:
    """Part of a gathered weight, kept for the backward pass in the place of its numbers."""

    layer: int
    weight: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


class _Layers:
    """The spread weights of each layer, and which layer is whole."""

    def __init__(self, weights: Sequence[Sequence[Any]]) -> None:
        """Take each layer's weights, which DeepSpeed has spread."""
        self._weights = weights
        self._whole: int | None = None
        self._for_good = False
        self._storages: dict[int, int] = {}

    @torch.no_grad()
    def gather(self, layer: int) -> None:
        """Make a layer whole, and let go of the one that was."""
        if layer == self._whole or self._for_good:
            return
        if self._whole is not None:
            kept = self._weights[self._whole]
            kept[0].partition(param_list=kept)
        wanted = self._weights[layer]
        wanted[0].all_gather_coalesced(wanted).wait()
        self._whole = layer
        self._storages = {_storage(weight): at for at, weight in enumerate(wanted)}

    @torch.no_grad()
    def gather_all(self) -> None:
        """Make every layer whole for good."""
        for layer, weights in enumerate(self._weights):
            if layer != self._whole and not self._for_good:
                weights[0].all_gather_coalesced(weights).wait()
        self._for_good, self._storages = True, {}

    def pack(self, tensor: Tensor) -> Tensor | _View:
        """Return what stands for a tensor that a backward pass needs: for a weight, its name."""
        at = self._storages.get(_storage(tensor))
        if at is None or self._whole is None:
            return tensor.detach()
        size, stride = tuple(tensor.shape), tensor.stride()
        return _View(self._whole, at, size, stride, int(tensor.storage_offset()))

    def unpack(self, packed: Tensor | _View) -> Tensor:
        """Return the tensor again, its layer gathered."""
        if not isinstance(packed, _View):
            return packed
        self.gather(packed.layer)
        weight: Tensor = self._weights[packed.layer][packed.weight].data
        return weight.as_strided(packed.size, packed.stride, packed.offset)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def spread(decoder: torch.nn.Module, layers: Sequence[tuple[torch.nn.Module, list[Any]]]) -> None:
    """Give each process its share of the layers' weights.

    Args:
        decoder: What the layers are part of, and all passes go through.
        layers: Each with its frozen weights, the same in every process.
    """
    import deepspeed

    # On a CPU it would compile a sum of its own over processes, which nothing here uses.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    for _, weights in layers:
        # False, or every linear layer of this process would be of DeepSpeed's making
        deepspeed.zero.Init(module=torch.nn.ParameterList(weights), mem_efficient_linear=False)
    gathered = _Layers([weights for _, weights in layers])
    for number, (module, _) in enumerate(layers):
        _gather_in_time(module, partial(gathered.gather, number))
    _name_weights(decoder, gathered)
    setattr(decoder, _LAYERS, gathered)


def is_spread(decoder: torch.nn.Module) -> bool:
    """Say whether `spread` has spread the layers of a decoder."""
    return hasattr(decoder, _LAYERS)


def gather(decoder: torch.nn.Module) -> None:
    """Give every process all weights of a spread decoder for good; all processes must call it."""
    getattr(decoder, _LAYERS).gather_all()


def _gather_in_time(module: torch.nn.Module, gather: Callable[[], None]) -> None:
    """Have a layer gathered before it computes, and before it is recomputed in a backward pass."""

    def before(_module: torch.nn.Module, _arguments: Any) -> None:
        gather()

    def after(_module: torch.nn.Module, _arguments: Any, output: Any) -> None:
        for tensor in output if isinstance(output, tuple) else (output,):
            if isinstance(tensor, torch.Tensor) and tensor.requires_grad:
                tensor.register_hook(lambda _gradient: gather())

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)


def _name_weights(decoder: torch.nn.Module, gathered: _Layers) -> None:
    """Have weights kept by name in the decoder's graphs: their numbers would be all of the base."""
    forward = decoder.forward

    @wraps(forward)
    def named(*args: Any, **kwargs: Any) -> Any:
        with saved_tensors_hooks(gathered.pack, gathered.unpack):
            return forward(*args, **kwargs)

    decoder.forward = named
