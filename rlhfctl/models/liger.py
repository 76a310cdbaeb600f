"""Liger's Triton kernels for norms, rotary embeddings and gated MLPs, on GPUs.

The losses stay those of TRL and rlhfctl: Liger's fused cross-entropy computes no log-probabilities
of single tokens. Nothing of this was run on a GPU so far.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from rlhfctl.errors import EnvironmentFault
from rlhfctl.models.device import device
from rlhfctl.recipe.library_names import LIGER_KEY, LIGER_PACKAGE

_WITHOUT_LOSSES = {"cross_entropy": False, "fused_linear_cross_entropy": False}


def use_liger_kernels(model: Any) -> None:
    """Replace norms, rotary embeddings and gated MLPs of a transformers model by Liger's.

    Raises:
        EnvironmentFault: The package or a GPU is missing, or Liger has none for the architecture.
    """
    if find_spec(LIGER_PACKAGE) is None:
        raise EnvironmentFault(
            "the package liger-kernel is not installed",
            LIGER_KEY,
            "Install rlhfctl[liger], or set it to false.",
        )
    if device().type != "cuda":
        raise EnvironmentFault(
            "Liger's kernels need a CUDA or ROCm GPU", LIGER_KEY, "Set it to false here."
        )
    patch_instance(model)


def patch_instance(model: Any) -> None:
    """Replace modules wherever the model is; the kernels run on GPUs alone.

    Raises:
        EnvironmentFault: Liger has none for the architecture.
    """
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
    from transformers.integrations.liger import apply_liger_kernel

    kind = model.config.model_type
    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise EnvironmentFault(f"Liger has no kernels for {kind}", LIGER_KEY, "Set it to false.")
    apply_liger_kernel(model, dict(_WITHOUT_LOSSES))
