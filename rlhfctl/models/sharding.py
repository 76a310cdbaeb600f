"""The frozen base spread over processes by FSDP2, with every adapter whole in each of them.

A layer's weights are gathered when the layer computes and let go afterwards. Adapters and heads stay
out of it: they are small, take turns on the base, and have their gradients summed like those of
unspread ones. Every process must run the same number of passes, which even shares of every batch see
to, until the base is gathered again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import RecipeError, UsageError
from rlhfctl.models.base import decoder_of, device, effective_quantization

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from rlhfctl.recipe.schema import Recipe


def asked_for() -> bool:
    """Say whether the launcher's configuration asks for FSDP, and there are processes to spread over."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and os.environ.get("RLHFCTL_USE_FSDP") == "true"


def wanted(recipe: Recipe) -> bool:
    """Say whether a recipe's base is to be spread; refuse what cannot be.

    Raises:
        RecipeError: All weights are trained, or the base is quantised.
        UsageError: The configuration asks for FSDP's first version.
    """
    if not asked_for():
        return False
    check(recipe)
    return True


def check(recipe: Recipe) -> None:
    """Refuse what cannot be spread.

    Raises:
        RecipeError: All weights are trained, or the base is quantised.
        UsageError: The configuration asks for FSDP's first version.
    """
    from accelerate.utils import FullyShardedDataParallelPlugin

    if recipe.lora is None:
        raise RecipeError(
            "FSDP spreads the frozen base, and with lora: null nothing is frozen",
            "lora",
            "Give lora, or launch with recipes/launch/ddp.yaml.",
        )
    if effective_quantization(recipe.model) != "none":
        raise RecipeError(
            "a quantised base cannot be spread over processes here",
            "model.quantization",
            "Use --set model.quantization=none, or launch with recipes/launch/ddp.yaml.",
        )
    if FullyShardedDataParallelPlugin().fsdp_version != 2:
        raise UsageError(
            "the base is spread by FSDP2 only", hint="set fsdp_version: 2 in the configuration"
        )


def shard_base(base: Any) -> None:
    """Give each process its share of every decoder layer's frozen weights.

    Embeddings and the LM head, which are used on their own, stay whole.

    Args:
        base: A transformers model with its adapters on it, the same in every process.
    """
    import torch
    from accelerate.utils import FullyShardedDataParallelPlugin
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device().type, (torch.distributed.get_world_size(),))
    reshard = bool(FullyShardedDataParallelPlugin().reshard_after_forward)
    kinds = set(base._no_split_modules)
    for module in decoder_of(base).modules():
        if type(module).__name__ in kinds:
            adapters = {weight for name, weight in module.named_parameters() if "lora_" in name}
            fully_shard(module, mesh=mesh, reshard_after_forward=reshard, ignored_params=adapters)


def is_spread(model: torch.nn.Module) -> bool:
    """Say whether `shard_base` has spread the base of a model."""
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in model.modules())


def gather_base(model: torch.nn.Module) -> None:
    """Give every process the whole base, so that each may compute by itself until it saves weights.

    All processes must call it; on a base that is not spread it does nothing. torch spreads a module
    again when its state is read.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(reshard_after_forward=False, recurse=False)
            module.unshard()


def average_gradients(model: torch.nn.Module, options: Mapping[str, Any]) -> torch.nn.Module:
    """Wrap a model with a spread base so that its adapters' gradients are averaged over processes.

    accelerate refuses to put DistributedDataParallel around sharded weights. Those here are frozen:
    nothing is reduced for them, and only what it compares and broadcasts at the start must be left to
    us, since it takes every weight for a whole one.

    Args:
        model: Its trainable weights are whole in every process.
        options: More arguments of DistributedDataParallel.
    """
    import torch

    for weight in model.parameters():
        if weight.requires_grad:
            torch.distributed.broadcast(weight.data, src=0)
    here = device()
    devices = None if here.type == "cpu" else [here]
    wrap = torch.nn.parallel.DistributedDataParallel
    return wrap(model, device_ids=devices, init_sync=False, **options)
