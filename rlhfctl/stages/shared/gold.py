"""Gold reward of the embedded world: used for evaluation, never for training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.data.sources import gold_comparisons
from rlhfctl.world.gold import gold_reward

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.recipe.schema import Recipe

GOLD_PAIRS_DRAWN = 6_000


def held_out_gold_comparisons(recipe: Recipe) -> Any | None:
    """Return comparisons in gold order on prompts that no stage trained on.

    Returns:
        Data set of prompt, chosen, rejected; None without embedded comparisons.
    """
    if not recipe.data.comparisons.is_embedded:
        return None
    return gold_comparisons(recipe, GOLD_PAIRS_DRAWN)


def gold_rewards(
    recipe: Recipe, prompts: Sequence[Any], texts: Sequence[str]
) -> list[float] | None:
    """Return the gold reward per response; None without embedded prompts.

    Args:
        recipe: Recipe; the source of prompts is read.
        prompts: Conversations with one user message each.
        texts: Responses without special tokens.
    """
    if not recipe.data.prompts.is_embedded:
        return None
    return [
        gold_reward(prompt[-1]["content"], text)
        for prompt, text in zip(prompts, texts, strict=True)
    ]
