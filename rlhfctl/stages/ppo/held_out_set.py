"""Held-out prompts and true reward of PPO's held-out evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.data.formatting import encode_prompts
from rlhfctl.data.sources import evaluation_prompts
from rlhfctl.errors import CheckpointError, DataError, RecipeError
from rlhfctl.results.io import read_result
from rlhfctl.results.training import RewardModelResult
from rlhfctl.run.directory import METRICS_FILE
from rlhfctl.stages.ppo.observed_scores import ObservedScores
from rlhfctl.stages.shared.held_out_rm import held_out_rm_source, load_foreign_judge
from rlhfctl.stages.shared.responses import PromptSet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from datasets import Dataset

    from rlhfctl.evaluation.alarms import AlarmLimits
    from rlhfctl.models.roles import Roles
    from rlhfctl.run.monitor import Monitor
    from rlhfctl.stages.shared.reward_sources import RewardSources
    from rlhfctl.stages.shared.stage_context import StageContext

FEWEST_PROMPTS = 2


@dataclass(frozen=True)
class HeldOutSet:
    """Held-out prompts and the measure of the true reward.

    Attributes:
        prompt_set: Held-out prompts, with the roles and reward sources.
        true_reward: `gold` or `held_out_rm`; None without a true reward.
        score_range: Lowest and highest normalised score that the reward model gave on held-out
            comparisons; None if unknown, or if there are other reward sources.
        has_rm: True if the run's reward model is among the roles.
    """

    prompt_set: PromptSet
    true_reward: str | None
    score_range: tuple[float, float] | None
    has_rm: bool = False

    def observer(self, limits: AlarmLimits) -> ObservedScores | None:
        """Return a new collector of what some alarms need; None if there are no scores."""
        rewards = self.prompt_set.rewards
        if rewards is None:
            return None
        with_states = self.has_rm and limits.state_distance is not None
        return ObservedScores(self.prompt_set.roles, rewards, with_states=with_states)


def held_out_prompts(context: StageContext, monitor: Monitor) -> Dataset | None:
    """Return the encoded prompts of the held-out evaluations; None if there are too few.

    The evaluation stage takes the first `evaluation.num_prompts` held-out prompts. These come after
    them: a best checkpoint chosen on the prompts that evaluate it would be biased upwards.

    Raises:
        RecipeError: There are too few, and early stopping or the choice of the result needs them.
    """
    recipe = context.recipe
    try:
        encoded = encode_prompts(
            evaluation_prompts(recipe, monitor),
            context.formatter_for("prompts"),
            recipe.generation.max_prompt_length,
            progress=monitor,
        ).dataset
    except DataError as error:
        _go_without(context, monitor, str(error))
        return None
    requested = recipe.ppo.eval_prompts
    if len(encoded) < FEWEST_PROMPTS:
        _go_without(context, monitor, f"{len(encoded)} held-out prompt is too few")
        return None
    first = min(recipe.evaluation.num_prompts, max(0, len(encoded) - requested))
    if first < recipe.evaluation.num_prompts:
        shared = min(len(encoded), recipe.evaluation.num_prompts) - first
        monitor.note(
            f"PPO's held-out evaluations share {shared} prompts with the evaluation stage: only "
            f"{len(encoded)} prompts are held out"
        )
    return encoded.select(range(first, min(len(encoded), first + requested)))


def _go_without(context: StageContext, monitor: Monitor, why: str) -> None:
    section = context.recipe.ppo
    acts = section.on_alarm != "warn"
    if acts or section.early_stop == "stop" or section.load_best_model_at_end:
        raise RecipeError(
            f"held-out evaluation of PPO is not possible: {why}",
            "ppo.on_alarm" if acts else "ppo.early_stop, ppo.load_best_model_at_end",
            "Give more prompts or a larger data.prompts.held_out, or leave such keys out.",
        )
    monitor.warn(f"PPO runs without held-out evaluations: {why}")


def open_held_out_set(
    context: StageContext,
    inputs: Mapping[str, Path],
    roles: Roles,
    sources: RewardSources,
    prompts: Dataset,
) -> HeldOutSet:
    """Return the prompts and measures of the held-out evaluations.

    Args:
        context: Tokenizer and recipe.
        inputs: `rm` where the reward model is a source.
        roles: Policy, reference and reward models.
        sources: Reward sources, opened.
        prompts: Result of `held_out_prompts`.

    Raises:
        CheckpointError: The held-out reward model cannot be used.
        EnvironmentFault: The held-out reward model cannot be loaded.
        RecipeError: Early stopping or the choice of the result needs a true reward.
    """
    recipe, rows = context.recipe, sources.rows(context.recipe, prompts)
    judge = held_out_rm_source(
        recipe, inputs, roles, load_foreign_judge(recipe, rows), context.formatter, rows
    )
    gold = recipe.data.prompts.is_embedded
    true_reward = "gold" if gold else "held_out_rm" if judge is not None else None
    section = recipe.ppo
    if true_reward is None and (section.early_stop == "stop" or section.load_best_model_at_end):
        raise RecipeError(
            "there is no true reward, so no best checkpoint can be chosen",
            "ppo.early_stop, ppo.load_best_model_at_end",
            "Name a held-out reward model by evaluation.judge_rm, train one with "
            "reward_model.judge_share, or leave both keys out.",
        )
    prompt_set = PromptSet(
        context,
        roles,
        sources.over(roles, context.formatter, rows),
        rows.prompts,
        [list(ids) for ids in prompts["input_ids"]],
        section.forward_batch_size,
        judge,
    )
    only_rm = section.uses_rm and len(section.reward_sources) == 1
    score_range = _score_range(inputs["rm"], roles) if only_rm else None
    return HeldOutSet(prompt_set, true_reward, score_range, section.uses_rm)


def _score_range(rm: Path, roles: Roles) -> tuple[float, float] | None:
    """Return lowest and highest score, normalised, from the reward model's own record."""
    try:
        result = read_result(RewardModelResult, rm / METRICS_FILE)
    except CheckpointError:
        # A reward model from elsewhere has no record of its scores; the preflight checks say so.
        return None
    normalization = roles.normalizations[0]
    scale = normalization.deviation
    return (
        (result.score_min - normalization.mean) / scale,
        (result.score_max - normalization.mean) / scale,
    )
