"""AdamW by torch or, on 8-bit moments, by bitsandbytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rlhfctl.errors import EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.ppo.settings import PPOSettings


def new_optimizer(
    weights: Sequence[torch.nn.Parameter], rate: float, settings: PPOSettings
) -> torch.optim.Optimizer:
    """Return an AdamW over a role's weights.

    Args:
        weights: All on one device.
        rate: The learning rate before any schedule.
        settings: Which optimiser, and its numbers.

    Raises:
        EnvironmentFault: One of bitsandbytes is wanted for weights that lie on a CPU.
    """
    betas = (settings.adam_beta1, settings.adam_beta2)
    epsilon, decay = settings.adam_epsilon, settings.weight_decay
    if settings.optim in {"adamw_torch", "adamw_torch_fused"}:
        return torch.optim.AdamW(
            weights,
            lr=rate,
            betas=betas,
            eps=epsilon,
            weight_decay=decay,
            # None lets torch take its loop over all weights at once on a GPU; False forbids it.
            fused=settings.optim == "adamw_torch_fused" or None,
        )
    if not weights[0].is_cuda:
        raise EnvironmentFault(
            f"{settings.optim} keeps its moments on a GPU, and there is none",
            "ppo.optim",
            "Use --set ppo.optim=adamw_torch here.",
        )
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    kind = AdamW8bit if settings.optim == "adamw_8bit" else PagedAdamW8bit
    made: torch.optim.Optimizer = kind(
        weights, lr=rate, betas=betas, eps=epsilon, weight_decay=decay
    )
    return made
