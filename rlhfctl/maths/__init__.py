"""The formulas of RLHF as pure functions of tensors.

Shape legend: B episodes, T tokens of the longest sequence, R tokens of the longest response,
N response tokens in all, H hidden size, V vocabulary. A mask is boolean; True: the token counts.
Names load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlhfctl.maths.advantages import (
        Advantages,
        batch_mean_advantages,
        generalized_advantages,
        group_normalized_advantages,
        leave_one_out_advantages,
        shape_rewards,
    )
    from rlhfctl.maths.ensembles import combine_scores
    from rlhfctl.maths.kl import adapt_beta, k1, k2, k3
    from rlhfctl.maths.log_probs import TokenLogProbs, token_log_probs
    from rlhfctl.maths.losses import (
        Clipped,
        bradley_terry_loss,
        clipped_surrogate,
        clipped_value_loss,
        importance_ratio,
    )
    from rlhfctl.maths.masking import length_mask, masked_mean, masked_sum, masked_variance, whiten
    from rlhfctl.maths.sampling import Seed, inverse_cdf, uniform_numbers
    from rlhfctl.maths.sequences import Sequences
    from rlhfctl.maths.statistics import RunningMoments, explained_variance

__all__ = [
    "Advantages",
    "Clipped",
    "RunningMoments",
    "Seed",
    "Sequences",
    "TokenLogProbs",
    "adapt_beta",
    "batch_mean_advantages",
    "bradley_terry_loss",
    "clipped_surrogate",
    "clipped_value_loss",
    "combine_scores",
    "explained_variance",
    "generalized_advantages",
    "group_normalized_advantages",
    "importance_ratio",
    "inverse_cdf",
    "k1",
    "k2",
    "k3",
    "leave_one_out_advantages",
    "length_mask",
    "masked_mean",
    "masked_sum",
    "masked_variance",
    "shape_rewards",
    "token_log_probs",
    "uniform_numbers",
    "whiten",
]

_MODULES = {
    "Advantages": "advantages",
    "Clipped": "losses",
    "RunningMoments": "statistics",
    "Seed": "sampling",
    "Sequences": "sequences",
    "TokenLogProbs": "log_probs",
    "adapt_beta": "kl",
    "batch_mean_advantages": "advantages",
    "bradley_terry_loss": "losses",
    "clipped_surrogate": "losses",
    "clipped_value_loss": "losses",
    "combine_scores": "ensembles",
    "explained_variance": "statistics",
    "generalized_advantages": "advantages",
    "group_normalized_advantages": "advantages",
    "importance_ratio": "losses",
    "inverse_cdf": "sampling",
    "k1": "kl",
    "k2": "kl",
    "k3": "kl",
    "leave_one_out_advantages": "advantages",
    "length_mask": "masking",
    "masked_mean": "masking",
    "masked_sum": "masking",
    "masked_variance": "masking",
    "shape_rewards": "advantages",
    "token_log_probs": "log_probs",
    "uniform_numbers": "sampling",
    "whiten": "masking",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
