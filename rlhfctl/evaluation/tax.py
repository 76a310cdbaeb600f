"""The alignment tax: what tuning cost a model at things it could do before (Ouyang et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rlhfctl.evaluation.intervals import paired_bootstrap_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

_DIFFERENCES = (("ppo", "sft"), ("sft", "base"))


def compare(
    values: Mapping[str, ArrayLike],
    seed: int,
    *,
    metric: str,
    higher_is_better: bool,
    weights: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return one task's metrics of base, SFT and PPO, and their paired differences.

    Args:
        values: Of each policy [examples] one value an example, the same examples in one order.
        seed: Of the bootstrap.
        metric: What the values are.
        higher_is_better: Whether more of it is better.
        weights: [examples] what each counts, such as its tokens where values are means a token;
            None: all alike. The intervals are then of a ratio of two means, whose influence values
            (value - ratio) * weight / mean weight are redrawn.

    Returns:
        `metric`, `higher_is_better`, `examples`, of each policy its mean, and `ppo_minus_sft` and
        `sft_minus_base`, each with `_low` and `_high`, where both stand trial.

    Raises:
        ValueError: If policies differ in examples, or there are none.
    """
    arrays = {name: np.asarray(part, dtype=np.float64) for name, part in values.items()}
    (examples,) = {len(array) for array in arrays.values()} or {0}
    if not examples:
        raise ValueError("there are no examples to compare by")
    shares = np.ones(examples) if weights is None else np.asarray(weights, dtype=np.float64)
    shares = shares / shares.mean()
    metrics: dict[str, Any] = {
        "metric": metric,
        "higher_is_better": higher_is_better,
        "examples": examples,
    }
    metrics |= {name: float((array * shares).mean()) for name, array in arrays.items()}
    for one, two in _DIFFERENCES:
        if one not in arrays or two not in arrays:
            continue
        name, difference = f"{one}_minus_{two}", arrays[one] - arrays[two]
        ratio = float((difference * shares).mean())
        if examples > 1:
            redrawn = ratio + (difference - ratio) * shares
            metrics |= paired_bootstrap_mean(redrawn, seed).metrics(name)
        else:
            metrics[name] = ratio
    return metrics
