"""Best-of-n from the SFT policy: a baseline for PPO without further training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.evaluation.best_of_n import best_of_n_curve
from rlhfctl.evaluation.win_rate import pairwise_outcomes
from rlhfctl.results.evaluation import BestOfN
from rlhfctl.stages.evaluation.context import saved_batches
from rlhfctl.stages.shared.responses import PromptSet, generate_responses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from rlhfctl.evaluation.policies import Responses
    from rlhfctl.stages.evaluation.context import EvalContext


def best_of_n(context: EvalContext) -> BestOfN | None:
    """Return best-of-n curves of SFT's responses; None without `evaluation.best_of_n` or scores.

    The proxy selects the response. `true_reward` needs a held-out reward model.
    """
    recipe = context.recipe
    count = recipe.evaluation.best_of_n
    if not count or ("rm" not in context.inputs and recipe.ppo.uses_rm):
        return None
    sampled = _samples(context, count)
    scores = {
        "proxy": sampled.proxy,
        "gold": sampled.gold,
        "true_reward": sampled.held_out_rm,
    }
    tables = {
        name: np.asarray(values, dtype=np.float64).reshape(-1, count)
        for name, values in scores.items()
        if values is not None
    }
    wins = wins_over(context.policies["sft"], tables)
    if wins is not None:
        tables["win_rate"] = wins
    curves = {
        name: best_of_n_curve(tables["proxy"], table, recipe.seed) for name, table in tables.items()
    }
    return BestOfN(samples=count, prompts=len(tables["proxy"]), **curves)


def wins_over(
    sft: Responses, tables: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.float64] | None:
    """Return 1, 0.5 or 0 per sample against another SFT response to its prompt.

    Args:
        sft: One response to each of at least as many prompts, in the same order.
        tables: [prompts, samples] scores of samples, `gold` or `true_reward` among them.

    Returns:
        [prompts, samples] by gold, else by the held-out reward model; None without either.
    """
    for name, opponents in (("gold", sft.gold), ("true_reward", sft.held_out_rm)):
        if name in tables and opponents is not None:
            scores = tables[name]
            against = np.asarray(opponents)[: len(scores), None]
            outcomes = pairwise_outcomes(
                scores.ravel(), np.broadcast_to(against, scores.shape).ravel()
            )
            return np.asarray(outcomes).reshape(scores.shape)
    return None


def _samples(context: EvalContext, count: int) -> Responses:
    """Return `count` SFT responses per prompt, grouped by prompt."""
    recipe, roles, session = context.recipe, context.roles, context.session
    rows = range(min(recipe.evaluation.best_of_n_prompts, len(context.prompts)))
    repeated = context.rows.select([row for row in rows for _ in range(count)])
    prompt_set = PromptSet(
        session,
        roles,
        context.sources.over(roles, session.formatter, repeated),
        repeated.prompts,
        [context.prompt_ids[row] for row in rows for _ in range(count)],
        recipe.evaluation.batch_size,
        judge=context.held_out_rm(repeated),
    )
    context.monitor.start("eval best-of-n", len(repeated.prompts), "responses")
    # Each repetition is a separate row of the prompt set, and so has its own seed.
    responses = generate_responses(
        prompt_set,
        "reference",
        on_batch=lambda done, _: context.monitor.step(done, {}),
        saved=saved_batches(context.output, "best-of-n"),
    )
    context.monitor.finish()
    return responses
