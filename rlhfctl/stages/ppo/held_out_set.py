"""Prompts and true reward of the held-out evaluation during PPO."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.data.formatting import encode_prompts
from rlhfctl.data.sources import evaluation_prompts
from rlhfctl.errors import DataError, RecipeError
from rlhfctl.run.directory import METRICS_FILE
from rlhfctl.stages.shared.responses import PromptSet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from datasets import Dataset

    from rlhfctl.models.roles import Roles
    from rlhfctl.ppo.rewards import Rewards
    from rlhfctl.run.monitor import Monitor
    from rlhfctl.stages.shared.stage_context import StageContext

FEWEST_PROMPTS = 2


@dataclass(frozen=True)
class HeldOutSet:
    """Prompts and true reward of the held-out evaluation.

    Attributes:
        prompt_set: Held-out prompts, roles and reward sources.
        true_reward: `gold` or `held_out_rm`; None without a true reward.
        score_range: Lowest and highest normalised score of the reward model on held-out
            comparisons; None if unknown, or if there are other reward sources.
    """

    prompt_set: PromptSet
    true_reward: str | None
    score_range: tuple[float, float] | None


def held_out_prompts(context: StageContext, monitor: Monitor) -> Dataset | None:
    """Return the encoded prompts of the held-out evaluation; None if there are too few.

    The final evaluation uses the first `evaluation.num_prompts` held-out prompts. Selecting the
    best checkpoint on them would bias it, so these prompts come after those.

    Raises:
        RecipeError: Too few prompts for the recipe's early stopping or choice of the best policy.
    """
    recipe = context.recipe
    try:
        prompts = encode_prompts(
            evaluation_prompts(recipe), context.formatter, recipe.generation.max_prompt_length
        ).dataset
    except DataError as error:
        _require_optional(context, monitor, str(error))
        return None
    requested = recipe.ppo.eval_prompts
    if len(prompts) < FEWEST_PROMPTS:
        _require_optional(
            context, monitor, f"{len(prompts)} held-out prompts, at least {FEWEST_PROMPTS} needed"
        )
        return None
    first = min(recipe.evaluation.num_prompts, max(0, len(prompts) - requested))
    if first < recipe.evaluation.num_prompts:
        shared = min(len(prompts), recipe.evaluation.num_prompts) - first
        monitor.note(
            f"held-out evaluation during PPO shares {shared} prompts with the final evaluation, "
            f"since only {len(prompts)} prompts are held out"
        )
    return prompts.select(range(first, min(len(prompts), first + requested)))


def _require_optional(context: StageContext, monitor: Monitor, reason: str) -> None:
    """Warn that held-out evaluation is skipped; refuse a recipe that depends on it."""
    section = context.recipe.ppo
    if section.early_stop == "stop" or section.load_best_model_at_end:
        raise RecipeError(
            f"no held-out evaluation is possible during PPO: {reason}",
            "ppo.early_stop, ppo.load_best_model_at_end",
            "Provide more prompts, raise data.prompts.held_out, or remove both keys.",
        )
    monitor.warn(f"PPO runs without held-out evaluation: {reason}")


def open_held_out_set(
    context: StageContext,
    inputs: Mapping[str, Path],
    roles: Roles,
    rewards: Rewards,
    prompts: Dataset,
    judge: int | None,
) -> HeldOutSet:
    """Return the prompts with their roles, reward sources and true reward.

    Args:
        context: Tokenizer and recipe.
        inputs: `rm` if the reward model is a source.
        roles: Models that generate and score responses.
        rewards: Reward sources for these prompts.
        prompts: From `held_out_prompts`.
        judge: Index of the held-out reward model among the roles' reward models, if any.

    Raises:
        RecipeError: Early stopping or the choice of the best policy needs a true reward, and there
            is none.
    """
    recipe = context.recipe
    gold = recipe.data.prompts.source == "embedded"
    true_reward = "gold" if gold else "held_out_rm" if judge is not None else None
    section = recipe.ppo
    if true_reward is None and (section.early_stop == "stop" or section.load_best_model_at_end):
        raise RecipeError(
            "without a true reward no policy can be selected as the best",
            "ppo.early_stop, ppo.load_best_model_at_end",
            "Train a held-out reward model with reward_model.judge_share, or remove both keys.",
        )
    prompt_set = PromptSet(
        context,
        roles,
        rewards,
        prompts["prompt"],
        [list(ids) for ids in prompts["input_ids"]],
        section.forward_batch_size,
        judge,
    )
    only_rm = section.uses_rm and len(section.reward_sources) == 1
    score_range = _score_range(inputs["rm"], roles) if only_rm else None
    return HeldOutSet(prompt_set, true_reward, score_range)


def _score_range(rm: Path, roles: Roles) -> tuple[float, float] | None:
    """Return the lowest and highest normalised score from the reward model's metrics."""
    try:
        metrics = json.loads((rm / METRICS_FILE).read_text(encoding="utf-8"))
        lowest, highest = float(metrics["score_min"]), float(metrics["score_max"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    normalization = roles.normalizations[0]
    scale = normalization.deviation
    return (lowest - normalization.mean) / scale, (highest - normalization.mean) / scale
