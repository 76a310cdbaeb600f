"""Best-of-n from the SFT policy: the baseline that PPO must beat, for it needs no training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rlhfctl.evaluation.best_of_n import best_of_n_curve
from rlhfctl.stages.shared.held_out_rm import held_out_rm_index
from rlhfctl.stages.shared.responses import PromptSet, generate_responses
from rlhfctl.stages.shared.reward_sources import open_rewards

if TYPE_CHECKING:
    from rlhfctl.evaluation.policies import Responses
    from rlhfctl.stages.evaluation.context import EvalContext


def best_of_n(context: EvalContext) -> dict[str, Any]:
    """Return `best_of_n`: what SFT's best of n responses by the proxy is worth.

    `proxy` always; `gold` where it is known, `true_reward` where a reward model that PPO never saw
    judges. Nothing where `evaluation.best_of_n` is 0, or nobody scores.
    """
    recipe = context.recipe
    count = recipe.evaluation.best_of_n
    if not count or ("rm" not in context.inputs and recipe.ppo.uses_rm):
        return {}
    sampled = _samples(context, count)
    known = {
        "proxy": sampled.proxy,
        "gold": sampled.gold,
        "true_reward": sampled.held_out_rm,
    }
    tables = {
        name: np.asarray(values, dtype=np.float64).reshape(-1, count)
        for name, values in known.items()
        if values is not None
    }
    curves = {
        name: best_of_n_curve(tables["proxy"], table, recipe.seed) for name, table in tables.items()
    }
    return {"best_of_n": {**curves, "samples": count, "prompts": len(tables["proxy"])}}


def _samples(context: EvalContext, count: int) -> Responses:
    """Return `count` responses of SFT to each prompt, those of one prompt after one another."""
    recipe, roles, session = context.recipe, context.roles, context.session
    rows = range(min(recipe.evaluation.best_of_n_prompts, len(context.prompts)))
    prompts = [context.prompts[row] for row in rows for _ in range(count)]
    questions = PromptSet(
        session,
        roles,
        open_rewards(recipe.ppo, roles, session.formatter, prompts),
        prompts,
        [context.prompt_ids[row] for row in rows for _ in range(count)],
        recipe.evaluation.batch_size,
        judge=held_out_rm_index(recipe, context.inputs),
    )
    context.monitor.start("eval best-of-n", len(prompts), "responses")
    # The k-th response to a prompt is asked as a question of its own, and so has its own seed.
    found = generate_responses(
        questions, "reference", on_batch=lambda done, _: context.monitor.step(done, {})
    )
    context.monitor.finish()
    return found
