"""Evaluation of SFT and PPO: responses to the same held-out prompts with the same seeds."""

from __future__ import annotations

import json
import shutil
from functools import partial
from typing import TYPE_CHECKING

from rlhfctl.data.formatting import encode_prompts
from rlhfctl.data.sources import load_prompts, untrained_prompts
from rlhfctl.evaluation.policies import compare_policies, samples
from rlhfctl.results.evaluation import EvaluationResult
from rlhfctl.results.io import to_json
from rlhfctl.run.directory import METRICS_FILE, SAMPLES_FILE
from rlhfctl.run.extras import require_harness
from rlhfctl.run.files import CHECKPOINTS
from rlhfctl.run.manifest import StageOutcome
from rlhfctl.stages.evaluation.alignment_tax import evaluate_tax
from rlhfctl.stages.evaluation.annotators import annotators
from rlhfctl.stages.evaluation.best_of_n import best_of_n
from rlhfctl.stages.evaluation.context import EvalContext, saved_batches
from rlhfctl.stages.evaluation.drift import evaluate_drift
from rlhfctl.stages.evaluation.judges import at_equal_length, judge_function, judges
from rlhfctl.stages.evaluation.reward_model import benchmark_subsets, evaluate_reward_model
from rlhfctl.stages.evaluation.scores import write_scores
from rlhfctl.stages.shared.averaged_rm import with_average
from rlhfctl.stages.shared.foreign_rewards import measure_scales, read_scales, report_truncation
from rlhfctl.stages.shared.held_out_rm import (
    held_out_rm_folder,
    held_out_rm_source,
    load_foreign_judge,
)
from rlhfctl.stages.shared.responses import PromptSet, generate_responses
from rlhfctl.stages.shared.reward_sources import RewardSources, extra_reward_models
from rlhfctl.stages.shared.stage_context import (
    open_roles,
    open_stage_context,
    report_rows,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from datasets import Dataset

    from rlhfctl.data.row_counts import RowCounts
    from rlhfctl.models.role_models import Role
    from rlhfctl.models.roles import Roles
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor
    from rlhfctl.stages.shared.stage_context import StageContext


def _held_out_prompts(
    recipe: Recipe, session: StageContext, monitor: Monitor
) -> tuple[Dataset, RowCounts]:
    """Return the encoded prompts that responses are generated to, and the row counts."""
    rows = load_prompts(recipe, monitor)
    encoded = encode_prompts(
        untrained_prompts(recipe, rows),
        session.formatter_for("prompts"),
        recipe.generation.max_prompt_length,
        progress=monitor,
    )
    counts = report_rows(monitor, "prompts", rows.report, (encoded.report,))
    size = min(len(encoded.dataset), recipe.evaluation.num_prompts)
    return encoded.dataset.select(range(size)), counts


def run(recipe: Recipe, inputs: Mapping[str, Path], output: Path, monitor: Monitor) -> StageOutcome:
    """Evaluate SFT alone or PPO against SFT, by the proxy and, if available, by gold.

    Args:
        recipe: Reads `evaluation`, `data`, sampling and the reward sources of `ppo`.
        inputs: `sft`; `rm` and `ppo` where they exist.
        output: An empty folder.
        monitor: Progress monitor, called after every batch.

    Raises:
        DataError: No held-out prompt is left.
        CheckpointError: A checkpoint does not fit.
        EnvironmentFault: The recipe needs an extra that is not installed.
    """
    require_harness(recipe.evaluation.tax.tasks)
    session = open_stage_context(recipe, monitor)
    encoded, counts = _held_out_prompts(recipe, session, monitor)
    # Before models are loaded, so that an unusable file fails early.
    subsets = benchmark_subsets(recipe, encoded["prompt"][0])
    sources = RewardSources.open(recipe.ppo)
    judge_call = judge_function(recipe)
    rows = sources.rows(recipe, encoded, [judge_call] if judge_call else [])
    judge_rm = held_out_rm_folder(recipe, inputs)
    more_rms = [*extra_reward_models(recipe.ppo), *([judge_rm] if judge_rm else [])]
    models = with_average(session, inputs, output, monitor)
    roles = open_roles(session, models, more_rms).with_sampling(
        temperature=recipe.evaluation.temperature,
        max_new_tokens=recipe.evaluation.max_new_tokens or recipe.generation.max_new_tokens,
    )
    # Without a reward model, SFT is evaluated without scores.
    if has_scores := "rm" in inputs or not recipe.ppo.uses_rm:
        sources.load_scorers(rows)
        _find_scales(session, inputs, roles, sources, monitor)
    foreign_judge = load_foreign_judge(recipe, rows)

    names: dict[str, Role] = {"sft": "reference"} | ({"ppo": "policy"} if "ppo" in inputs else {})
    monitor.start("eval", len(names) * len(encoded), "responses")
    prompt_set = PromptSet(
        session,
        roles,
        sources.over(roles, session.formatter, rows) if has_scores else None,
        rows.prompts,
        [list(ids) for ids in encoded["input_ids"]],
        recipe.evaluation.batch_size,
        judge=held_out_rm_source(recipe, inputs, roles, foreign_judge, session.formatter, rows),
    )
    policies = {
        name: generate_responses(
            prompt_set,
            role,
            on_batch=partial(_report_progress, monitor, index * len(encoded)),
            saved=saved_batches(output, name),
        )
        for index, (name, role) in enumerate(names.items())
    }
    monitor.finish()

    context = EvalContext(
        session,
        inputs,
        roles,
        prompt_set.prompts,
        prompt_set.prompt_ids,
        policies,
        output,
        monitor,
        sources,
        rows,
        judge_call,
        foreign_judge,
        subsets,
    )
    result = _evaluate(context)
    _write(context, result)
    shutil.rmtree(output / CHECKPOINTS)
    return StageOutcome(to_json(result), {"prompts": counts.record()})


def _find_scales(
    session: StageContext,
    inputs: Mapping[str, Path],
    roles: Roles,
    sources: RewardSources,
    monitor: Monitor,
) -> None:
    """Scale the scores of reward models from elsewhere as PPO did, or else measure the scale."""
    scales = read_scales(inputs["ppo"]) if "ppo" in inputs else {}
    scorers = sources.normalised_scorers()
    missing = {source: scorer for source, scorer in scorers.items() if source not in scales}
    size = session.recipe.evaluation.batch_size
    sources.scales.update({source: scales[source] for source in scorers if source in scales})
    sources.scales.update(measure_scales(session, roles, missing, size, monitor))


def _report_truncation(context: EvalContext) -> None:
    judge = context.foreign_judge
    scorers = {} if judge is None else {"evaluation.judge_rm": judge}
    report_truncation(context.sources.scorers | scorers, None, context.monitor)


def _write(context: EvalContext, result: EvaluationResult) -> None:
    """Write the metrics, and responses side by side; warn of inputs that were cut."""
    session, output = context.session, context.output
    prompts = [session.formatter.decode(ids) for ids in context.prompt_ids]
    sample_rows = samples(prompts, context.policies, session.recipe.evaluation.num_samples)
    (output / METRICS_FILE).write_text(
        json.dumps(to_json(result), indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    lines = [json.dumps(to_json(row), ensure_ascii=False) for row in sample_rows]
    (output / SAMPLES_FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    _report_truncation(context)


def _evaluate(context: EvalContext) -> EvaluationResult:
    """Return the result of all parts of the evaluation; writes `scores.json` on the way."""
    recipe = context.recipe
    policies, comparison = compare_policies(context.policies, recipe.evaluation.ngram, recipe.seed)
    annotators_result = annotators(context)
    reward_model = evaluate_reward_model(context)
    if comparison is not None:
        comparison = at_equal_length(comparison, context)
    judge_results = judges(context)
    best = best_of_n(context)
    write_scores(context)
    return EvaluationResult(
        prompts=len(context.prompts),
        policies=policies,
        comparison=comparison,
        judges=judge_results,
        reward_model=reward_model,
        best_of_n=best,
        drift=evaluate_drift(context),
        tax=evaluate_tax(context),
        annotators=annotators_result,
    )


def _report_progress(monitor: Monitor, before: int, done: int, kl: float) -> None:
    monitor.step(before + done, {"kl": kl})
