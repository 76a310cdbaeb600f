"""Recipe rules of the advantage estimators that compare the responses to one prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPED = ("rloo", "grpo")


def with_published_whitening(values: Any) -> Any:
    """Return a `ppo` section as given, without whitening unless it asks for it.

    Neither paper whitens advantages beyond what its estimator does.
    """
    if not isinstance(values, dict) or values.get("advantage_estimator") not in GROUPED:
        return values
    return {"whiten_advantages": False} | values


def group_errors(estimator: str, responses_per_prompt: int, gamma: float) -> Iterator[str]:
    """Yield a sentence per setting that contradicts the estimator."""
    if estimator not in GROUPED:
        return
    if responses_per_prompt < 2:
        yield (
            f"advantage_estimator {estimator} compares the responses to one prompt, and "
            f"responses_per_prompt is {responses_per_prompt}; set it to 2 or more, such as 4"
        )
    if gamma != 1.0:
        yield (
            f"advantage_estimator {estimator} takes a response as one action, without a discount "
            f"per token; set gamma to 1 (it is {gamma:g})"
        )
