"""The average of reward models' weights, as one ordinary checkpoint (WARM, Ramé et al. 2024).

The weights that LoRA adds are B A (alpha / r), so the average of M adapters' weights is the sum of
their products, each with a factor of 1 / M. That is one adapter of rank M r: the A stacked, the B
side by side, alpha as it was, so that alpha / (M r) holds the factor and no weight is rounded. Where
the scale is alpha / sqrt(r) (rsLoRA), alpha is divided by sqrt(M). The
average of the A times the average of the B would be other weights. Score heads are averaged as they
are, and so are whole models.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch

from rlhfctl.errors import CheckpointError
from rlhfctl.models import adapters
from rlhfctl.models.scorer import load_scorer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from rlhfctl.recipe.schema import ModelSection

_STACKED = {"lora_A": 0, "lora_embedding_A": 0, "lora_B": 1, "lora_embedding_B": 1}
"""Part of a tensor's saved name -> dimension of the rank."""
_PLAIN = {"use_dora": False, "rank_pattern": {}, "alpha_pattern": {}}
"""Options of a LoraConfig with which layers differ or weights are no products, and their plain values."""


def average_reward_models(
    folders: Sequence[Path], target: Path, section: ModelSection, pad_token_id: int
) -> None:
    """Write the average of reward models of one base.

    Args:
        folders: M checkpoints of `train-rm`, all adapters of one shape, or all whole models.
        target: Folder to write; must exist.
        section: Model section of the recipe.
        pad_token_id: Pad token of the tokenizer.

    Raises:
        CheckpointError: A checkpoint is damaged, or differs from the first in kind or shape.
    """
    if len({adapters.is_adapter(folder) for folder in folders}) > 1:
        raise CheckpointError(
            "adapters and whole models have no average: " + ", ".join(map(str, folders)),
            hint="Train the reward models with the same lora setting.",
        )
    if adapters.is_adapter(folders[0]):
        _average_adapters(folders, target)
    else:
        _average_whole(folders, target, section, pad_token_id)


def _average_adapters(folders: Sequence[Path], target: Path) -> None:
    configs = [adapters.read_config(folder) for folder in folders]
    weights = [adapters.read_weights(folder) for folder in folders]
    for folder, config, tensors in zip(folders, configs, weights, strict=True):
        _require_alike(folder, config, configs[0], tensors, weights[0])
    config = deepcopy(configs[0])
    config.r = len(folders) * config.r
    if config.use_rslora:
        config.lora_alpha /= math.sqrt(len(folders))
    heads = [
        name for name in adapters.HEAD_NAMES if adapters.head_key(name, "weight") in weights[0]
    ]
    if not heads:
        raise CheckpointError("the adapter has no score head", str(folders[0]))
    averaged = {name: _averaged(name, [part[name] for part in weights]) for name in weights[0]}
    adapters.save_adapter(
        averaged, config, target, str(configs[0].base_model_name_or_path), "SEQ_CLS"
    )


def _require_alike(
    folder: Path, config: Any, first: Any, tensors: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    """Refuse an adapter whose weights cannot be averaged with the first one's.

    Raises:
        CheckpointError: It is no plain LoRA, or differs in rank, alpha, names or shapes.
    """
    unusual = [name for name, plain in _PLAIN.items() if (getattr(config, name) or plain) != plain]
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    alike = shapes == {name: tensor.shape for name, tensor in expected.items()}
    if unusual or not alike or _scale(config) != _scale(first):
        reason = f"it uses {', '.join(unusual)}" if unusual else "its rank, alpha or modules differ"
        raise CheckpointError(
            f"the reward model cannot be averaged with the first one: {reason}",
            str(folder),
            "Train all reward models with the same lora section.",
        )


def _scale(config: Any) -> tuple[int, float, bool]:
    return config.r, config.lora_alpha, config.use_rslora


def _averaged(name: str, tensors: Sequence[Tensor]) -> Tensor:
    """Return the tensor of the average: factors stacked along the rank, others averaged."""
    dimension = next((_STACKED[part] for part in name.split(".") if part in _STACKED), None)
    if dimension is not None:
        return torch.cat(list(tensors), dim=dimension)
    # Equal tensors, such as new tokens' rows from SFT, stay as they are.
    if all(torch.equal(tensor, tensors[0]) for tensor in tensors[1:]):
        return tensors[0]
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(tensors[0].dtype)


@torch.no_grad()
def _average_whole(
    folders: Sequence[Path], target: Path, section: ModelSection, pad_token_id: int
) -> None:
    """Average whole models one after another, so that two are in memory at a time."""
    model = load_scorer(section, pad_token_id, str(folders[0]), dtype=torch.float32)
    weights = model.state_dict()
    for number, folder in enumerate(folders[1:], 2):
        other = load_scorer(section, pad_token_id, str(folder), dtype=torch.float32).state_dict()
        if {name: w.shape for name, w in other.items()} != {
            name: w.shape for name, w in weights.items()
        }:
            raise CheckpointError(
                "the reward model cannot be averaged with the first one: its shapes differ",
                str(folder),
            )
        for name, weight in weights.items():
            if weight.is_floating_point():
                weight.lerp_(other[name], 1.0 / number)
    model.save_pretrained(target)
