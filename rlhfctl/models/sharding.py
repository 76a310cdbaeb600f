"""The frozen base spread over processes by FSDP2, with every adapter whole in each of them.

A layer's weights are gathered when the layer computes and let go afterwards. Adapters stay out of it:
they are small, take turns on the base, and have their gradients summed like those of unspread ones.
Every process must run the same number of passes, which even shares of every batch see to.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import RecipeError, UsageError
from rlhfctl.models.base import decoder_of, device, effective_quantization

if TYPE_CHECKING:
    from rlhfctl.recipe.schema import Recipe


def asked_for() -> bool:
    """Say whether the launcher's configuration asks for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


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
            "PPO runs under FSDP2 only", hint="set fsdp_version: 2 in the configuration"
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
