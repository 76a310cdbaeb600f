"""The frozen base spread over processes, with every adapter whole in each of them.

By FSDP2, or by DeepSpeed's ZeRO-3 (`models/zero3.py`), as the launcher's configuration asks. A layer's
weights are gathered when the layer computes and let go afterwards. Adapters and heads stay out of it:
they are small, take turns on the base, and have their gradients summed like those of unspread ones.
Every process must run the same number of passes, which even shares of every batch see to, until the
base is gathered again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import RecipeError, UsageError
from rlhfctl.models import zero3
from rlhfctl.models.base import decoder_of, device, effective_quantization

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from rlhfctl.recipe.schema import Recipe


_WAYS = {"RLHFCTL_USE_FSDP": "FSDP", "RLHFCTL_USE_DEEPSPEED": "DeepSpeed"}
_ZERO3 = {
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": ("zero_stage", "3"),
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": ("offload_param_device", "none"),
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": ("offload_optimizer_device", "none"),
    "ACCELERATE_DEEPSPEED_CONFIG_FILE": ("deepspeed_config_file", "none"),
}
"""What accelerate tells of a configuration for DeepSpeed: its key, and the one value that is done."""


def asked_for() -> str:
    """Return what the launcher's configuration asks for, where there are processes to spread over.

    Returns:
        `FSDP`, `DeepSpeed`, or nothing.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ""
    return next((name for variable, name in _WAYS.items() if os.environ.get(variable)), "")


def wanted(recipe: Recipe) -> bool:
    """Say whether a recipe's base is to be spread; refuse what cannot be.

    Raises:
        RecipeError: All weights are trained, or the base is quantised.
        UsageError: The configuration asks for FSDP's first version, another ZeRO than the third, or
            what comes with that and is not done here.
    """
    if not asked_for():
        return False
    check(recipe)
    return True


def check(recipe: Recipe) -> None:
    """Refuse what cannot be spread.

    Raises:
        RecipeError: All weights are trained, or the base is quantised.
        UsageError: The configuration asks for FSDP's first version, another ZeRO than the third, or
            what comes with that and is not done here.
    """
    name = asked_for()
    if recipe.lora is None:
        raise RecipeError(
            f"{name} spreads the frozen base, and with lora: null nothing is frozen",
            "lora",
            "Give lora, or launch with recipes/launch/ddp.yaml.",
        )
    if effective_quantization(recipe.model) != "none":
        raise RecipeError(
            "a quantised base cannot be spread over processes here",
            "model.quantization",
            "Use --set model.quantization=none, or launch with recipes/launch/ddp.yaml.",
        )
    if name == "DeepSpeed":
        _check_deepspeed()
    else:
        _check_fsdp()


def _check_fsdp() -> None:
    from accelerate.utils import FullyShardedDataParallelPlugin

    if FullyShardedDataParallelPlugin().fsdp_version != 2:
        raise UsageError(
            "the base is spread by FSDP2 only", hint="set fsdp_version: 2 in the configuration"
        )


def _check_deepspeed() -> None:
    for variable, (key, done) in _ZERO3.items():
        # accelerate takes a stage that is not named for 2
        found = os.environ.get(variable, "2" if key == "zero_stage" else "none")
        if found != done:
            raise UsageError(
                f"{key}: {found} is not done under DeepSpeed here",
                hint=f"set {key}: {done} in the configuration, as recipes/launch/zero3.yaml has it",
            )


def shard_base(base: Any) -> None:
    """Give each process its share of every decoder layer's frozen weights.

    Embeddings and the LM head, which are used on their own, stay whole.

    Args:
        base: A transformers model with its adapters on it, the same in every process.
    """
    kinds = set(base._no_split_modules)
    decoder = decoder_of(base)
    layers = [module for module in decoder.modules() if type(module).__name__ in kinds]
    if asked_for() == "DeepSpeed":
        zero3.spread(decoder, [(layer, _weights(layer, adapters=False)) for layer in layers])
    else:
        _shard_by_fsdp(layers)


def _weights(layer: torch.nn.Module, *, adapters: bool) -> list[torch.nn.Parameter]:
    named = layer.named_parameters()
    return [weight for name, weight in named if ("lora_" in name) is adapters]


def _shard_by_fsdp(layers: Sequence[torch.nn.Module]) -> None:
    import torch
    from accelerate.utils import FullyShardedDataParallelPlugin
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device().type, (torch.distributed.get_world_size(),))
    reshard = bool(FullyShardedDataParallelPlugin().reshard_after_forward)
    for layer in layers:
        ignored = set(_weights(layer, adapters=True))
        fully_shard(layer, mesh=mesh, reshard_after_forward=reshard, ignored_params=ignored)


def is_spread(model: torch.nn.Module) -> bool:
    """Say whether `shard_base` has spread the base of a model."""
    from torch.distributed.fsdp import FSDPModule

    return any(
        isinstance(module, FSDPModule) or zero3.is_spread(module) for module in model.modules()
    )


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
        elif zero3.is_spread(module):
            zero3.gather(module)


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
