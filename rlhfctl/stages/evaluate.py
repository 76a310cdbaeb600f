"""SFT and PPO on trial: both answer the same held-out prompts with the same seeds."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from rlhfctl.data.formatting import encode_prompts
from rlhfctl.data.sources import judging_prompts
from rlhfctl.evaluation.trial import judge, sample_rows
from rlhfctl.run.extras import require_harness
from rlhfctl.run.manifest import StageOutcome
from rlhfctl.stages.annotators import annotators
from rlhfctl.stages.answers import Questions, answer
from rlhfctl.stages.best_of_n import best_of_n
from rlhfctl.stages.drift import judge_drift
from rlhfctl.stages.held_out_rm import judge_number, judge_reward_model
from rlhfctl.stages.judges import judges
from rlhfctl.stages.judging import Judging
from rlhfctl.stages.reward_sources import more_reward_models, open_rewards
from rlhfctl.stages.reward_trial import named_subsets, try_reward_model
from rlhfctl.stages.scores import scores
from rlhfctl.stages.session import open_roles, open_session
from rlhfctl.stages.tax import judge_tax

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rlhfctl.models.networks import Role
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor


# Each adds figures under names of its own to those of `judge`.
_PARTS: tuple[Callable[[Judging], dict[str, Any]], ...] = (
    annotators,
    try_reward_model,
    judges,
    best_of_n,
    scores,
    judge_drift,
    judge_tax,
)


def run(recipe: Recipe, inputs: Mapping[str, Path], output: Path, monitor: Monitor) -> StageOutcome:
    """Judge whatever exists: SFT alone, or PPO against it, by proxy and where known by gold.

    Args:
        recipe: `evaluation`, `data`, and the sampling and reward sources of `ppo` are read.
        inputs: `sft`; `rm` and `ppo` where they exist.
        output: An empty folder.
        monitor: Hears of every batch.

    Raises:
        DataError: No held-out prompt is left.
        CheckpointError: A checkpoint does not fit.
        EnvironmentFault: The recipe asks for an extra that is not installed.
    """
    require_harness(recipe.evaluation.tax.tasks)
    session = open_session(recipe)
    encoded = encode_prompts(
        judging_prompts(recipe), session.formatter, recipe.ppo.max_prompt_length
    ).dataset
    encoded = encoded.select(range(min(len(encoded), recipe.evaluation.num_prompts)))
    # Before anything is loaded for good, for a file that cannot be used ends the stage.
    subsets = named_subsets(recipe, encoded["prompt"][0])
    others, judge_rm = more_reward_models(recipe.ppo), judge_reward_model(recipe, inputs)
    roles = open_roles(session, inputs, [*others, *([judge_rm] if judge_rm else [])])
    # Before there is a reward model, SFT alone is judged without scores.
    known = "rm" in inputs or not recipe.ppo.uses_rm
    rewards = (
        open_rewards(recipe.ppo, roles, session.formatter, encoded["prompt"]) if known else None
    )
    roles.temperature = recipe.evaluation.temperature
    roles.max_new_tokens = recipe.evaluation.max_new_tokens or recipe.ppo.max_new_tokens

    names: dict[str, Role] = {"sft": "reference"}
    if "ppo" in inputs:
        names["ppo"] = "policy"
    monitor.start("eval", len(names) * len(encoded), "responses")
    questions = Questions(
        session,
        roles,
        rewards,
        encoded["prompt"],
        [list(ids) for ids in encoded["input_ids"]],
        recipe.evaluation.batch_size,
        judge=judge_number(recipe, inputs),
    )
    policies = {
        name: answer(questions, role, hear=partial(_tell, monitor, at * len(encoded)))
        for at, (name, role) in enumerate(names.items())
    }
    monitor.finish()

    figures = judge(policies, recipe.evaluation.ngram, recipe.seed)
    judging = Judging(
        session,
        inputs,
        roles,
        questions.prompts,
        questions.prompt_ids,
        policies,
        output,
        monitor,
        subsets,
    )
    for part in _PARTS:
        figures |= part(judging)
    prompts = [session.formatter.decode(ids) for ids in encoded["input_ids"]]
    samples = sample_rows(prompts, policies, recipe.evaluation.num_samples)
    (output / "figures.json").write_text(
        json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    lines = [json.dumps(sample, ensure_ascii=False) for sample in samples]
    (output / "samples.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return StageOutcome(figures)


def _tell(monitor: Monitor, before: int, done: int, kl: float) -> None:
    monitor.step(before + done, {"kl": kl})
