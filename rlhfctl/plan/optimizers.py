"""Bytes of an optimizer's state, and those that its step takes for a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_BYTES = {
    # Two moments: bitsandbytes' 8 bits with two float32 per block of 256 (Dettmers et al. 2022,
    # 8-bit optimizers via block-wise quantization); torchao's 4 bits with one per block of 128.
    "adamw_8bit": 2 + 8 / 256,
    "adamw_bnb_8bit": 2 + 8 / 256,
    "paged_adamw_8bit": 2 + 8 / 256,
    "adamw_torch_8bit": 2 + 8 / 256,
    "adamw_torch_4bit": 1 + 8 / 128,
    # Three moments.
    "ademamix": 12.0,
    "paged_ademamix_32bit": 12.0,
    "ademamix_8bit": 3 + 12 / 256,
    "paged_ademamix_8bit": 3 + 12 / 256,
    "grokadamw": 12.0,
    # One.
    "lion_32bit": 4.0,
    "paged_lion_32bit": 4.0,
    "lion_8bit": 1 + 4 / 256,
    "paged_lion_8bit": 1 + 4 / 256,
    "adagrad": 4.0,
    "rmsprop": 4.0,
    "rmsprop_bnb": 4.0,
    "rmsprop_bnb_32bit": 4.0,
    "rmsprop_bnb_8bit": 1 + 4 / 256,
    "schedule_free_sgd": 4.0,
    # None; Adafactor's rows and columns (Shazeer and Stern 2018) are below a hundredth.
    "sgd": 0.0,
    "lomo": 0.0,
    "adalomo": 0.0,
    "adafactor": 0.04,
}
_TWO_MOMENTS = 8.0
"""Bytes per weight of every other optimizer: two moments in fp32 (Kingma and Ba 2015)."""


def state_bytes(optim: str, weights: Sequence[Tensor]) -> int:
    """Return the bytes of an optimizer's state.

    Args:
        optim: Name in the recipe.
        weights: Trained weights, in fp32.
    """
    return int(_BYTES.get(optim, _TWO_MOMENTS) * sum(weight.numel() for weight in weights))


def step_bytes(optim: str, weights: Sequence[Tensor], *, on_gpu: bool) -> int:
    """Return the bytes that the step takes for a moment, beside state and gradients.

    torch's AdamW writes the root of the second moment: on a GPU of all weights at once
    (`_multi_tensor_adamw`), on a CPU of one weight at a time, twice (`_single_tensor_adamw`). Fused
    and quantised optimizers write none.
    """
    if optim != "adamw_torch" or not weights:
        return 0
    sizes = [weight.nbytes for weight in weights]
    return sum(sizes) if on_gpu else 2 * max(sizes)
