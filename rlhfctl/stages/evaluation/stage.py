"""SFT and PPO on trial: both answer the same held-out prompts with the same seeds."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from rlhfctl.data.formatting import encode_prompts
from rlhfctl.data.sources import evaluation_prompts
from rlhfctl.evaluation.policies import compare_policies, sample_rows
from rlhfctl.run.directory import METRICS_FILE, SAMPLES_FILE
from rlhfctl.run.extras import require_harness
from rlhfctl.run.manifest import StageOutcome
from rlhfctl.stages.evaluation.alignment_tax import judge_tax
from rlhfctl.stages.evaluation.annotators import annotators
from rlhfctl.stages.evaluation.best_of_n import best_of_n
from rlhfctl.stages.evaluation.context import EvalContext
from rlhfctl.stages.evaluation.drift import judge_drift
from rlhfctl.stages.evaluation.judges import judges
from rlhfctl.stages.evaluation.reward_model import benchmark_subsets, evaluate_reward_model
from rlhfctl.stages.evaluation.scores import scores
from rlhfctl.stages.shared.held_out_rm import held_out_rm_folder, held_out_rm_index
from rlhfctl.stages.shared.responses import PromptSet, generate_responses
from rlhfctl.stages.shared.reward_sources import extra_reward_models, open_rewards
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rlhfctl.models.role_models import Role
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor


# Each adds metrics under names of its own to those of `compare_policies`.
_PARTS: tuple[Callable[[EvalContext], dict[str, Any]], ...] = (
    annotators,
    evaluate_reward_model,
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
    session = open_stage_context(recipe)
    encoded = encode_prompts(
        evaluation_prompts(recipe), session.formatter, recipe.generation.max_prompt_length
    ).dataset
    encoded = encoded.select(range(min(len(encoded), recipe.evaluation.num_prompts)))
    # Before anything is loaded for good, for a file that cannot be used ends the stage.
    subsets = benchmark_subsets(recipe, encoded["prompt"][0])
    others, judge_rm = extra_reward_models(recipe.ppo), held_out_rm_folder(recipe, inputs)
    roles = open_roles(session, inputs, [*others, *([judge_rm] if judge_rm else [])]).with_sampling(
        temperature=recipe.evaluation.temperature,
        max_new_tokens=recipe.evaluation.max_new_tokens or recipe.generation.max_new_tokens,
    )
    # Before there is a reward model, SFT alone is judged without scores.
    known = "rm" in inputs or not recipe.ppo.uses_rm
    rewards = (
        open_rewards(recipe.ppo, roles, session.formatter, encoded["prompt"]) if known else None
    )

    names: dict[str, Role] = {"sft": "reference"}
    if "ppo" in inputs:
        names["ppo"] = "policy"
    monitor.start("eval", len(names) * len(encoded), "responses")
    questions = PromptSet(
        session,
        roles,
        rewards,
        encoded["prompt"],
        [list(ids) for ids in encoded["input_ids"]],
        recipe.evaluation.batch_size,
        judge=held_out_rm_index(recipe, inputs),
    )
    policies = {
        name: generate_responses(
            questions, role, on_batch=partial(_tell, monitor, at * len(encoded))
        )
        for at, (name, role) in enumerate(names.items())
    }
    monitor.finish()

    metrics = compare_policies(policies, recipe.evaluation.ngram, recipe.seed)
    context = EvalContext(
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
        metrics |= part(context)
    prompts = [session.formatter.decode(ids) for ids in encoded["input_ids"]]
    samples = sample_rows(prompts, policies, recipe.evaluation.num_samples)
    (output / METRICS_FILE).write_text(
        json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    lines = [json.dumps(sample, ensure_ascii=False) for sample in samples]
    (output / SAMPLES_FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return StageOutcome(metrics)


def _tell(monitor: Monitor, before: int, done: int, kl: float) -> None:
    monitor.step(before + done, {"kl": kl})
