"""Dropout and other noise of training mode, switched off in a model's config and its modules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_NOISE = re.compile("drop|jitter")
"""Names of probabilities: `attention_dropout`, `resid_pdrop`, `layerdrop`, `router_jitter_noise`."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def silence_config(config: Any) -> None:
    """Set every probability of dropout in a config to 0, those of nested configs too.

    It must precede loading: OPT, BioGPT and others pass the number on to functions, so that no
    module of the loaded model can be found that drops anything.

    Args:
        config: A transformers config.
    """
    for name, value in list(vars(config).items()):
        if isinstance(value, dict):
            value.update(
                {
                    key: type(entry)(0)
                    for key, entry in value.items()
                    if _NOISE.search(str(key)) and _is_number(entry)
                }
            )
        elif hasattr(value, "to_dict") and hasattr(value, "model_type"):
            silence_config(value)
        elif _NOISE.search(name) and _is_number(value):
            setattr(config, name, type(value)(0))


def disable_dropout(model: torch.nn.Module) -> None:
    """Set every probability of dropout of a loaded model to 0, and those of its config.

    For models whose code sets a probability of its own, and those not loaded from a silenced config.
    """
    config = getattr(model, "config", None)
    if config is not None:
        silence_config(config)
    for module in model.modules():
        kind = type(module).__name__
        for name, value in list(vars(module).items()):
            if _is_number(value) and (_NOISE.search(name) or (name == "p" and "Drop" in kind)):
                setattr(module, name, type(value)(0))
