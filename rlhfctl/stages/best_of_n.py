"""Best-of-n from the SFT policy: the baseline that PPO must beat, for it needs no training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rlhfctl.evaluation.best_of_n import best_of_n_curve
from rlhfctl.stages.answers import Questions, answer
from rlhfctl.stages.held_out_rm import judge_number
from rlhfctl.stages.reward_sources import open_rewards

if TYPE_CHECKING:
    from rlhfctl.evaluation.trial import Responses
    from rlhfctl.stages.judging import Judging


def best_of_n(judging: Judging) -> dict[str, Any]:
    """Return `best_of_n`: what SFT's best of n responses by the proxy is worth.

    `proxy` always; `gold` where it is known, `stand_in` where a reward model that PPO never saw
    judges. Nothing where `evaluation.best_of_n` is 0, or nobody scores.
    """
    recipe = judging.recipe
    count = recipe.evaluation.best_of_n
    if not count or ("rm" not in judging.inputs and recipe.ppo.uses_rm):
        return {}
    sampled = _samples(judging, count)
    known = {
        "proxy": sampled.proxy,
        "gold": sampled.gold,
        "stand_in": sampled.held_out_rm,
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


def _samples(judging: Judging, count: int) -> Responses:
    """Return `count` responses of SFT to each prompt, those of one prompt after one another."""
    recipe, roles, session = judging.recipe, judging.roles, judging.session
    rows = range(min(recipe.evaluation.best_of_n_prompts, len(judging.prompts)))
    prompts = [judging.prompts[row] for row in rows for _ in range(count)]
    questions = Questions(
        session,
        roles,
        open_rewards(recipe.ppo, roles, session.formatter, prompts),
        prompts,
        [judging.prompt_ids[row] for row in rows for _ in range(count)],
        recipe.evaluation.batch_size,
        judge=judge_number(recipe, judging.inputs),
    )
    judging.monitor.start("eval best-of-n", len(prompts), "responses")
    # The k-th response to a prompt is asked as a question of its own, and so has its own seed.
    found = answer(questions, "reference", hear=lambda done, _: judging.monitor.step(done, {}))
    judging.monitor.finish()
    return found
