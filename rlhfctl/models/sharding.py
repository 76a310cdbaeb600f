"""Sharding of the frozen base over processes by FSDP2; adapters stay whole in each process.

A layer's weights are gathered for its computation and released afterwards. Adapters and heads are
not sharded: they are small, take turns on the base, and their gradients are averaged by DDP. Every
process must run the same number of passes until the base is gathered again; equal shares of every
batch ensure that.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import RecipeError, UsageError
from rlhfctl.models.base import decoder_of
from rlhfctl.models.device import device, effective_quantization
from rlhfctl.recipe.generation import CACHE_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from rlhfctl.recipe.schema import Recipe


_FSDP = "RLHFCTL_USE_FSDP"
"""Set by `run.process_group.join_processes` in place of accelerate's own variable."""


def is_requested(recipe: Recipe) -> bool:
    """Return whether the launcher's configuration shards the base; refuse recipes that cannot be.

    Raises:
        RecipeError: All weights are trained, the base is quantised, its embeddings are resized, or
            sampling is compiled.
        UsageError: The configuration asks for FSDP version 1.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not os.environ.get(_FSDP):
        return False
    _check(recipe)
    return True


def _check(recipe: Recipe) -> None:
    from accelerate.utils import FullyShardedDataParallelPlugin

    if recipe.lora is None:
        raise RecipeError(
            "FSDP shards the frozen base, and with lora: null no weights are frozen",
            "lora",
            "Set lora, or launch with recipes/launch/ddp.yaml.",
        )
    if effective_quantization(recipe.model) != "none":
        raise RecipeError(
            "a quantised base cannot be sharded over processes",
            "model.quantization",
            "Use --set model.quantization=none, or launch with recipes/launch/ddp.yaml.",
        )
    if recipe.model.resize_embeddings:
        raise RecipeError(
            "rows for new tokens cannot be trained in a base that is sharded over processes",
            "model.resize_embeddings",
            "Launch with recipes/launch/ddp.yaml.",
        )
    if recipe.generation.cache_implementation == "static":
        raise RecipeError(
            "sampling from a base that is sharded over processes is not compiled",
            CACHE_KEY,
            "Use the default, dynamic, or launch with recipes/launch/ddp.yaml.",
        )
    if FullyShardedDataParallelPlugin().fsdp_version != 2:
        raise UsageError(
            "the base is sharded by FSDP2 only", hint="set fsdp_version: 2 in the configuration"
        )


def shard_base(base: Any) -> None:
    """Shard the frozen weights of every decoder layer over the processes.

    Embeddings and the LM head, which are also called on their own, stay whole.

    Args:
        base: A transformers model with its adapters, the same in every process.
    """
    import torch
    from accelerate.utils import FullyShardedDataParallelPlugin
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    layer_types = set(base._no_split_modules)
    mesh = init_device_mesh(device().type, (torch.distributed.get_world_size(),))
    reshard = bool(FullyShardedDataParallelPlugin().reshard_after_forward)
    layers = [m for m in decoder_of(base).modules() if type(m).__name__ in layer_types]
    for layer in layers:
        adapters = {weight for name, weight in layer.named_parameters() if "lora_" in name}
        fully_shard(layer, mesh=mesh, reshard_after_forward=reshard, ignored_params=adapters)


def is_sharded(model: torch.nn.Module) -> bool:
    """Return whether `shard_base` has sharded the base of a model."""
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in model.modules())


def gather_base(model: torch.nn.Module) -> None:
    """Give every process the whole base, so that each can compute alone until it saves weights.

    All processes must call it; on a base that is not sharded it does nothing. torch shards a module
    again when its state is read.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(reshard_after_forward=False, recurse=False)
            module.unshard()


def average_gradients(model: torch.nn.Module, options: Mapping[str, Any]) -> torch.nn.Module:
    """Wrap a model with a sharded base so that its adapters' gradients are averaged over processes.

    accelerate refuses to wrap sharded weights in DistributedDataParallel. Those here are frozen, so
    nothing is reduced for them. Only DDP's initial comparison and broadcast must be replaced, since
    they assume that every weight is whole.

    Args:
        model: Model whose trainable weights are whole in every process.
        options: Further arguments of DistributedDataParallel.
    """
    import torch

    for weight in model.parameters():
        if weight.requires_grad:
            torch.distributed.broadcast(weight.data, src=0)
    here = device()
    devices = None if here.type == "cpu" else [here]
    wrap = torch.nn.parallel.DistributedDataParallel
    return wrap(model, device_ids=devices, init_sync=False, **options)
