"""Embedding rows for tokens beyond the base's vocabulary (`model.resize_embeddings`).

SFT trains the new rows with the adapter, as peft's `trainable_token_indices`. Later stages take them
as part of the base, unchanged, and write them to their adapters too, so that every adapter loads
with peft on the base once its embeddings are resized.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import torch

from rlhfctl.models.hub import hub_errors, model_source
from rlhfctl.models.tokenizer import embedding_rows, read_tokenizer

if TYPE_CHECKING:
    from rlhfctl.recipe.schema import ModelSection

_ROWS = ".token_adapter.trainable_tokens_delta"
_PREFIX = "base_model.model."


def new_token_ids(section: ModelSection) -> list[int]:
    """Return the ids that the tokenizer has and the base's embeddings lack.

    Returns:
        Ids in order; none unless `resize_embeddings` is set.
    """
    if not section.resize_embeddings:
        return []
    source = model_source(section)
    with hub_errors(source, "model.name_or_path"):
        rows = embedding_rows(section, source)
    largest = max(read_tokenizer(section).get_vocab().values())
    return list(range(rows, largest + 1)) if rows is not None else []


@torch.no_grad()
def resize(model: Any, ids: list[int]) -> None:
    """Append embedding rows, and those of an LM head, each the mean of the rows before.

    Args:
        model: A model of transformers as loaded from the base.
        ids: Result of `new_token_ids`.
    """
    if not ids:
        return
    model.resize_token_embeddings(ids[-1] + 1, mean_resizing=False)
    for module in _vocabulary_modules(model).values():
        weight = module.weight
        weight[ids[0] :] = weight[: ids[0]].float().mean(dim=0).to(weight.dtype)


def trainable_indices(model: Any, ids: list[int]) -> dict[str, list[int]] | None:
    """Return peft's `trainable_token_indices`; None without new tokens."""
    modules = _vocabulary_modules(model)
    return {name.rpartition(".")[2]: ids for name in modules} if ids else None


def expose_head_bias(model: Any) -> None:
    """Give a wrapped LM head its bias, which TRL 1.16's loss reads and peft 0.21 hides.

    Args:
        model: PeftModel with trainable tokens.
    """
    head = model.get_base_model().get_output_embeddings()
    if hasattr(head, "token_adapter"):
        head.__dict__["bias"] = head.token_adapter.get_base_layer().bias


@torch.no_grad()
def take_rows(model: Any, weights: dict[str, torch.Tensor], ids: list[int]) -> None:
    """Move the new tokens' rows from an adapter's weights into the model's own.

    Args:
        model: Resized base.
        weights: Tensors by saved name; the rows are removed.
        ids: Ids of the new tokens.
    """
    modules = _vocabulary_modules(model)
    for key in [key for key in weights if key.endswith(_ROWS)]:
        rows = weights.pop(key)
        name = key.removeprefix(_PREFIX).removesuffix(_ROWS)
        # A classifier has no LM head.
        if name in modules:
            module = modules[name]
            module.weight[ids] = rows.to(module.weight.device, module.weight.dtype)


def drop_rows(weights: dict[str, torch.Tensor]) -> None:
    """Remove the new tokens' rows from an adapter's weights, where the model holds them itself."""
    for key in [key for key in weights if key.endswith(_ROWS)]:
        del weights[key]


def with_rows(
    weights: dict[str, torch.Tensor], config: Any, model: Any, ids: list[int], *, head: bool
) -> tuple[dict[str, torch.Tensor], Any]:
    """Return an adapter's weights and config with the new tokens' rows of its base.

    Args:
        weights: Tensors by saved name.
        config: LoraConfig of the adapter.
        model: Base with the rows.
        ids: Ids of the new tokens.
        head: Whether the adapter is of a language model, with an LM head.
    """
    if not ids:
        return weights, config
    embedding = model.get_input_embeddings()
    modules = {
        name: module
        for name, module in _vocabulary_modules(model).items()
        if head or module is embedding
    }
    config = copy(config)
    config.trainable_token_indices = {name.rpartition(".")[2]: ids for name in modules}
    rows = {f"{_PREFIX}{name}{_ROWS}": module.weight[ids] for name, module in modules.items()}
    return weights | rows, config


def _vocabulary_modules(model: Any) -> dict[str, Any]:
    """Return the embedding, and the LM head unless their weights are tied, by full name."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    modules = [embedding]
    if head is not None and head.weight is not embedding.weight:
        modules.append(head)
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(module)]: module for module in modules}
