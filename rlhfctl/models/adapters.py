"""Creation, reading, checks and writing of LoRA adapters as ordinary PEFT folders."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import CheckpointError
from rlhfctl.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from rlhfctl.recipe.schema import LoraSection

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_SETS = ("target_modules", "exclude_modules")
"""Values of a LoraConfig that are sets."""
HEAD_NAMES = ("score", "classifier")
"""Names of a classifier's head in transformers."""


def head_key(head: str, part: str) -> str:
    """Return the saved name of a head's `weight` or `bias`."""
    return f"base_model.model.{head}.{part}"


HEAD_KEYS = frozenset(head_key(name, part) for name in HEAD_NAMES for part in ("weight", "bias"))
"""Saved names of the tensors of a classifier's head."""


def new_config(section: LoraSection, task_type: str, head: str | None = None) -> Any:
    """Return the LoraConfig of a new adapter.

    The task type is always set: without it peft either crashes on a classifier or neither trains
    nor saves the score head.

    Args:
        section: Rank, alpha, dropout and target modules.
        task_type: CAUSAL_LM, SEQ_CLS or TOKEN_CLS.
        head: Name of the classifier's head; None for a language model.
    """
    from peft import LoraConfig

    return LoraConfig(
        r=section.r,
        lora_alpha=section.alpha,
        use_rslora=section.use_rslora,
        lora_dropout=section.dropout,
        target_modules=section.target_modules,
        task_type=task_type,
        modules_to_save=None if head is None else [head],
    )


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds a PEFT adapter rather than a whole model."""
    return (folder / CONFIG).is_file()


def read_config(folder: Path) -> Any:
    """Read an adapter's LoraConfig.

    Raises:
        CheckpointError: The adapter is missing, damaged, or not LoRA.
    """
    from peft import LoraConfig, PeftConfig

    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"no readable adapter: {str(error).splitlines()[0]}",
            str(folder),
            "Name a folder written by rlhfctl or by peft's save_pretrained.",
        ) from error
    if not isinstance(config, LoraConfig):
        raise CheckpointError("the adapter is not a LoRA adapter", str(folder / CONFIG))
    return config


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read an adapter's tensors by their saved names.

    Raises:
        CheckpointError: The file is missing, truncated or otherwise damaged, or a number is NaN or
            infinite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from rlhfctl.models.finite_weights import require_finite_tensors

    path = folder / WEIGHTS
    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the adapter's weights cannot be read: {error}",
            str(path),
            "Train the stage again with --force, or use another checkpoint.",
        ) from error
    require_finite_tensors(weights, path)
    return weights


def set_weights(model: Any, weights: dict[str, torch.Tensor], name: str, source: Path) -> None:
    """Load saved tensors into the adapter `name`; all of its tensors are required.

    Args:
        model: PeftModel with the adapter.
        weights: Tensors by saved name; those of a head only if the model has one.
        name: Name of the adapter in the model.
        source: Folder of the weights, for messages.

    Raises:
        CheckpointError: Shapes or names differ.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    # Without embeddings: peft would compare the vocabulary with the base's config on the hub.
    expected = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    missing = sorted(set(expected) - set(weights))
    unexpected = sorted(set(weights) - set(expected))
    if missing or unexpected:
        raise CheckpointError(
            f"the adapter does not fit this model: {len(missing)} tensors missing, "
            f"{len(unexpected)} unexpected (such as {(missing + unexpected)[0]})",
            str(source),
            "It was trained on another base or with other lora.target_modules.",
        )
    for key, tensor in weights.items():
        if tensor.shape != expected[key].shape:
            raise CheckpointError(
                f"the adapter does not fit this model: {key} is {list(tensor.shape)}, "
                f"but {list(expected[key].shape)} is needed",
                str(source),
                "It was trained on another base or with another lora.r.",
            )
    set_peft_model_state_dict(model, weights, adapter_name=name)


def check_rank(folder: Path, section: LoraSection) -> None:
    """Refuse an adapter whose rank or scale differs from the recipe's.

    Raises:
        CheckpointError: Rank, alpha or use_rslora differs.
    """
    config = read_config(folder)
    if config.use_rslora != section.use_rslora:
        raise CheckpointError(
            f"the adapter has use_rslora {str(config.use_rslora).lower()}, and the recipe has another",
            str(folder),
            f"Use --set lora.use_rslora={str(config.use_rslora).lower()}, or train it again.",
        )
    saved = (config.r, float(config.lora_alpha))
    expected = (section.r, float(section.alpha))
    if saved != expected:
        raise CheckpointError(
            f"the adapter has rank {saved[0]} and alpha {saved[1]:g}, "
            f"but the recipe has rank {expected[0]} and alpha {expected[1]:g}",
            str(folder),
            f"Use --set lora.r={saved[0]} --set lora.alpha={saved[1]:g}, or train it again.",
        )


def restore_float32(model: torch.nn.Module) -> None:
    """Convert every trainable weight to fp32.

    TRL 1.16 casts the adapters of a quantised base to bfloat16, where updates at PPO's and even
    SFT's learning rates are partly lost to rounding, and where the score head receives fp32 states.
    """
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()


def save_adapter(
    weights: dict[str, torch.Tensor], config: Any, folder: Path, base_name: str, task_type: str
) -> None:
    """Write an adapter in peft's format, so that peft alone can load it.

    Args:
        weights: Tensors by saved name, including the head of a classifier.
        config: LoraConfig of the adapter.
        folder: Target folder; created if missing.
        base_name: Name or path of the base.
        task_type: Task type that `PeftModel.from_pretrained` is to use.
    """
    from safetensors.torch import save_file

    heads = [name for name in HEAD_NAMES if head_key(name, "weight") in weights]
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config.save_pretrained(str(folder))
    changes = {
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "task_type": task_type,
        "modules_to_save": heads or None,
    }
    rewrite_config(folder, changes)


def rewrite_config(folder: Path, changes: Mapping[str, Any] | None = None) -> None:
    """Rewrite a saved adapter's config with its sets sorted; peft's order differs per process.

    Args:
        folder: Folder that peft wrote.
        changes: Values to replace.
    """
    path = folder / CONFIG
    saved = parse_json(path.read_text(encoding="utf-8")) | dict(changes or {})
    for key in _SETS:
        if isinstance(saved.get(key), list):
            saved[key] = sorted(saved[key])
    path.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n", encoding="utf-8")
