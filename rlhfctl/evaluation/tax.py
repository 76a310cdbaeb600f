"""Alignment tax: loss of earlier abilities through tuning (Ouyang et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.evaluation.intervals import paired_bootstrap_mean
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import TaxTask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike


def compare(
    values: Mapping[str, ArrayLike],
    seed: int,
    *,
    metric: str,
    higher_is_better: bool,
    weights: ArrayLike | None = None,
) -> TaxTask:
    """Return one task's metrics of base, SFT and PPO, and their paired differences.

    Args:
        values: Policy -> [examples] one value per example, in the same order for all policies.
        seed: Seed of the bootstrap.
        metric: Name of the metric.
        higher_is_better: Direction of the metric.
        weights: [examples] weight per example, such as its tokens for per-token means; None: equal
            weights. The bootstrap then resamples the influence values of the ratio of means,
            (value - ratio) * weight / mean weight.

    Raises:
        ValueError: If policies differ in examples, or there are none.
    """
    arrays = {name: np.asarray(part, dtype=np.float64) for name, part in values.items()}
    (examples,) = {len(array) for array in arrays.values()} or {0}
    if not examples:
        raise ValueError("there are no examples to compare")
    shares = np.ones(examples) if weights is None else np.asarray(weights, dtype=np.float64)
    shares = shares / shares.mean()

    def difference(one: str, two: str) -> Estimate | None:
        if one not in arrays or two not in arrays:
            return None
        values = arrays[one] - arrays[two]
        ratio = float((values * shares).mean())
        if examples < 2:
            return Estimate(ratio)
        return paired_bootstrap_mean(ratio + (values - ratio) * shares, seed)

    return TaxTask(
        metric=metric,
        higher_is_better=higher_is_better,
        examples=examples,
        **{name: float((array * shares).mean()) for name, array in arrays.items()},
        ppo_minus_sft=difference("ppo", "sft"),
        sft_minus_base=difference("sft", "base"),
    )
