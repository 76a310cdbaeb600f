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
    """Check that every target matches a module, by peft's rules, and not the head alone.

    Raises:
        RecipeError: One matches none, or all match only the language model's head, which the reward
            model and the critic do not have.
    """
    targets = lora.target_modules
    if targets == "all-linear":
        return
    matches = {
        target: [name for name in names if _is_match(name, target, is_list=targets is not target)]
        for target in ([targets] if isinstance(targets, str) else targets)
    }
    missing = [target for target, matched in matches.items() if not matched]
    head = model.get_output_embeddings()
    if missing:
        kind = model.config.model_type
        what = f"{', '.join(missing)} matches no module of the architecture {kind}"
    elif all(names[name] is head for matched in matches.values() for name in matched):
        what = (
            f"{', '.join(matches)} matches the language model's head only, which the reward model and "
            "the critic do not have"
        )
    else:
        return
    layers = linear_layers(model)
    hint = (
        f"Its linear layers are {', '.join(layers)}{closest(missing[0], layers) if missing else ''}"
    )
    if isinstance(targets, str) and targets in layers:
        hint = f"Text is a regular expression for whole names; write [{targets}]."
    raise RecipeError(what, "lora.target_modules", hint)


def _is_match(name: str, target: str, *, is_list: bool) -> bool:
    """Return whether a target matches a module: an end of its name, or a pattern for all of it."""
    if is_list:
        return name == target or name.endswith(f".{target}")
    return re.fullmatch(target, name) is not None


def linear_layers(model: Any) -> list[str]:
    """Return the last parts of the names of the linear layers below the head, each once."""
    head = model.get_output_embeddings()
    linear = (
        name
        for name, module in model.named_modules()
        if type(module).__name__ in _LINEAR and module is not head
    )
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

    layers = linear_layers(model)
    try:
        adapted = inject_adapter_in_model(new_config(lora, "CAUSAL_LM"), model)
    except ValueError as error:
        # peft's sentence continues with the whole module, over many lines.
        kind = re.match(r"Target module (\w+)\(", str(error))
        what = f"a target matches a {kind[1]}" if kind else _first_sentence(error).splitlines()[0]
        raise RecipeError(
            f"peft cannot adapt these modules: {what}",
            "lora.target_modules",
            f"Name linear layers, such as {', '.join(layers)}.",
        ) from error
    modules: Iterable[Any] = adapted.modules()
    return sum(isinstance(module, LoraLayer) for module in modules)
