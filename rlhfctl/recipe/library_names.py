"""Names of transformers' optimizers and attention implementations, known without importing it.

A test compares them with the installed transformers.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Sequence

Optimizer = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_torch_4bit",
    "adamw_torch_8bit",
    "adamw_8bit",
    "adamw_bnb_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "ademamix",
    "ademamix_8bit",
    "paged_ademamix_8bit",
    "paged_ademamix_32bit",
    "lion_8bit",
    "lion_32bit",
    "paged_lion_8bit",
    "paged_lion_32bit",
    "adafactor",
    "adagrad",
    "rmsprop",
    "rmsprop_bnb",
    "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit",
    "sgd",
    "grokadamw",
    "lomo",
    "adalomo",
    "schedule_free_adamw",
    "schedule_free_radam",
    "schedule_free_sgd",
    "stable_adamw",
]
"""Optimizers that a recipe can name.

transformers has others: GaLore's and APOLLO's need a list of modules that recipes do not have,
those for XLA and NPU a device that rlhfctl does not use, and `adamw_anyprecision` a package that is
no longer maintained.
"""

OPTIMIZER_PACKAGES = {
    "adamw_torch_4bit": "torchao",
    "adamw_torch_8bit": "torchao",
    "grokadamw": "grokadamw",
    "lomo": "lomo_optim",
    "adalomo": "lomo_optim",
    "schedule_free_adamw": "schedulefree",
    "schedule_free_radam": "schedulefree",
    "schedule_free_sgd": "schedulefree",
    "stable_adamw": "optimi",
}
"""Import names of the packages that some optimizers need and rlhfctl does not install."""

Attention = Literal[
    "eager",
    "sdpa",
    "flex_attention",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
]
ATTENTIONS: tuple[str, ...] = get_args(Attention)
ATTENTION_PACKAGES = {
    "flash_attention_2": "flash_attn",
    "flash_attention_3": "flash_attn_interface",
    "flash_attention_4": "flash_attn",
}
"""Import names of the packages with these implementations; `kernels` downloads them instead."""
KERNELS = "kernels"

LIGER_PACKAGE = "liger_kernel"
"""Package of `model.use_liger_kernel`."""
LIGER_KEY = "model.use_liger_kernel"
TRACKER_PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}
"""Import names of each tracker's package, of which one is needed."""

_LEAST_LIKENESS = 0.6
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?(:[\w.-]+)?")


def attention_fault(name: str) -> str | None:
    """Return what is wrong with a name of an attention implementation; None if nothing is.

    A repository of kernels has a slash: ``OWNER/NAME``, and maybe ``@REVISION`` and ``:FUNCTION``.
    """
    if name in ATTENTIONS or _REPOSITORY.fullmatch(name):
        return None
    return (
        f'is "{name}", but must be one of {", ".join(ATTENTIONS)}, or a repository of kernels, '
        f"OWNER/NAME{closest(name, ATTENTIONS)}"
    )


def closest(name: str, names: Sequence[str]) -> str:
    """Return ``; did you mean NAME?`` with the name that is most like another; empty if none is.

    Names are compared as a whole, and by what is before the first underscore.
    """

    def likeness(other: str) -> float:
        parts = (other, other.partition("_")[0])
        return max(difflib.SequenceMatcher(None, name, part).ratio() for part in parts)

    best = max(names, key=likeness, default="")
    return f"; did you mean {best}?" if best and likeness(best) >= _LEAST_LIKENESS else ""
