"""Checks of adapter targets and attention against an architecture, built without weights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import EnvironmentFault, RecipeError
from rlhfctl.models.hub import hub_errors
from rlhfctl.recipe.library_names import closest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rlhfctl.recipe.schema import LoraSection, ModelSection


def check_modules(section: ModelSection, lora: LoraSection | None, source: str) -> int:
    """Build a model on the meta device, with the recipe's attention and adapters.

    Args:
        section: The model.
        lora: Adapters; None to train all weights.
        source: Folder with the model's config.

    Returns:
        The number of modules that get an adapter.

    Raises:
        RecipeError: The model has no module of a name in `lora.target_modules`, or not the attention
            implementation.
        EnvironmentFault: The attention implementation needs a package, or the model cannot be built.
    """
    model = _on_meta(section, source)
    if lora is None:
        return 0
    names = {name: module for name, module in model.named_modules() if name}
    _require_matches(lora, names, model)
    return _adapted(model, lora)


def _on_meta(section: ModelSection, source: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from rlhfctl.models.base import load_config

    config = load_config(section, source)
    where = f"model.attn_implementation: {section.attn_implementation}"
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                config, attn_implementation=section.attn_implementation
            )
    except ImportError as error:
        raise EnvironmentFault(
            _first_sentence(error), where, "Install the package, or use sdpa."
        ) from error
    except ValueError as error:
        if section.attn_implementation is None:
            with hub_errors(source, "model.name_or_path"):
                raise
        raise RecipeError(
            f"the architecture {config.model_type} cannot use it: {_first_sentence(error)}",
            where,
            "Use sdpa or eager, or leave the key out.",
        ) from error


def _first_sentence(error: Exception) -> str:
    return re.split(r"(?<=[a-z])\.\s", str(error).strip(), maxsplit=1)[0].rstrip(".")


def _require_matches(lora: LoraSection, names: dict[str, Any], model: Any) -> None:
    """Check that every target matches a module, by peft's rules.

    Raises:
        RecipeError: One matches none.
    """
    targets = lora.target_modules
    if targets == "all-linear":
        return
    if isinstance(targets, str):
        pattern = re.compile(targets)
        missing = [] if any(map(pattern.fullmatch, names)) else [targets]
    else:
        missing = [
            target
            for target in targets
            if not any(name == target or name.endswith(f".{target}") for name in names)
        ]
    if not missing:
        return
    head = model.get_output_embeddings()
    layers = _linear_layers({name: layer for name, layer in names.items() if layer is not head})
    hint = f"Its linear layers are {', '.join(layers)}{closest(missing[0], layers)}"
    if isinstance(targets, str) and targets in layers:
        hint = f"Text is a regular expression for whole names; write [{targets}]."
    raise RecipeError(
        f"{', '.join(missing)} matches no module of the architecture {model.config.model_type}",
        "lora.target_modules",
        hint,
    )


def _linear_layers(names: dict[str, Any]) -> list[str]:
    """Return the last parts of the names of linear layers, without repetition."""
    linear = (name for name, module in names.items() if type(module).__name__ in _LINEAR)
    return list(dict.fromkeys(name.rpartition(".")[2] for name in linear))


_LINEAR = ("Linear", "Conv1D")


def _adapted(model: Any, lora: LoraSection) -> int:
    """Return the number of modules that peft puts adapters on.

    Raises:
        RecipeError: peft cannot adapt a target.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    from rlhfctl.models.adapters import new_config

    try:
        adapted = inject_adapter_in_model(new_config(lora, "CAUSAL_LM"), model)
    except ValueError as error:
        raise RecipeError(
            f"peft cannot adapt these modules: {_first_sentence(error)}", "lora.target_modules"
        ) from error
    modules: Iterable[Any] = adapted.modules()
    return sum(isinstance(module, LoraLayer) for module in modules)
