"""Evaluation of the reward model: accuracy, calibration, length bias and probes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.data.rows import content, is_conversation
from rlhfctl.data.split import prompt_key
from rlhfctl.data.subsets import read_subsets
from rlhfctl.errors import DataError
from rlhfctl.evaluation.calibration import calibration_metrics
from rlhfctl.evaluation.intervals import paired_bootstrap_mean
from rlhfctl.evaluation.length_bias import length_metrics
from rlhfctl.evaluation.preferences import accuracy
from rlhfctl.evaluation.probes import PROBES
from rlhfctl.evaluation.slices import accuracy_by_margin, accuracy_by_name
from rlhfctl.evaluation.subsets import subset_metrics
from rlhfctl.results.estimate import GroupAccuracy
from rlhfctl.results.evaluation import (
    HeldOutAccuracies,
    ProbeResult,
    RewardModelEvaluation,
    SubsetAccuracies,
)
from rlhfctl.stages.evaluation.best_of_subsets import best_of_accuracies
from rlhfctl.stages.evaluation.harmless_edits import edited_comparisons, in_form_of
from rlhfctl.stages.evaluation.scored_pairs import Pairs, score_pairs, score_responses

if TYPE_CHECKING:
    from rlhfctl.data.rows import Value
    from rlhfctl.data.subsets import Subsets
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.stages.evaluation.context import EvalContext


def evaluate_reward_model(context: EvalContext) -> RewardModelEvaluation | None:
    """Return the evaluation of the reward model; None without one.

    Held-out comparisons of the embedded world are left out if the prompts have another source:
    the comparisons are then only the recipe's default.

    Raises:
        DataError: No usable comparisons.
        DivergedError: A score is not finite.
    """
    if "rm" not in context.inputs:
        return None
    data = context.recipe.data
    held_out = benchmark = None
    if not data.comparisons.is_embedded or data.prompts.is_embedded:
        held_out = _on_comparisons(context)
    if context.subsets is not None:
        benchmark = _on_subsets(context, context.subsets)
    return RewardModelEvaluation(held_out, benchmark) if held_out or benchmark else None


def _on_comparisons(context: EvalContext) -> HeldOutAccuracies:
    section, seed = context.recipe.evaluation, context.recipe.seed
    held_out = context.comparisons.held_out
    held_out = held_out.select(range(min(len(held_out), section.num_comparisons)))
    pairs = score_pairs(context, held_out.to_list(), "comparisons")
    chosen, rejected = pairs.chosen, pairs.rejected
    columns = held_out.column_names

    def by_name(column: str) -> dict[str, GroupAccuracy] | None:
        names = [row[column] for row in pairs.rows] if column in columns else []
        return accuracy_by_name(chosen, rejected, names) if any(names) else None

    per_margin = None
    if "margin" in columns:
        margins = np.array([row["margin"] for row in pairs.rows], dtype=np.float64)
        has_margin = np.isfinite(margins)
        if has_margin.any():
            per_margin = accuracy_by_margin(
                chosen[has_margin], rejected[has_margin], margins[has_margin]
            )
    return HeldOutAccuracies(
        overall=GroupAccuracy(accuracy(chosen, rejected), len(chosen)),
        per_annotator=by_name("annotator"),
        per_source=by_name("source"),
        per_margin=per_margin,
        calibration=calibration_metrics(chosen - rejected, section.calibration_bins, seed),
        length=length_metrics(
            chosen,
            rejected,
            pairs.chosen_lengths,
            pairs.rejected_lengths,
            [prompt_key(row["prompt"]) for row in pairs.rows],
            seed,
        ),
        probes=_probe(context, pairs) if section.probes else None,
        harmless_edits=edited_comparisons(context, pairs) if section.probes else None,
    )


def _probe(context: EvalContext, pairs: Pairs) -> dict[str, ProbeResult]:
    """Return the mean change of the chosen responses' normalised score per probe."""
    seed, limit = context.recipe.seed, context.recipe.evaluation.probes
    candidates = range(min(limit, len(pairs.rows)))
    # One good response per prompt, so that `other_prompt` uses another prompt's response.
    first = {prompt_key(pairs.rows[index]["prompt"]): index for index in reversed(candidates)}
    places = sorted(first.values())
    rows = [pairs.rows[index] for index in places]
    texts = [content(row["chosen"]) for row in rows]
    changed_texts: list[tuple[Value, Value]] = []
    origin: list[tuple[str, int]] = []
    for name, probe in PROBES.items():
        for index, row in enumerate(rows):
            changed = probe.change(texts, index, seed + index)
            if changed is not None:
                changed_texts.append((row["prompt"], in_form_of(row["chosen"], changed)))
                origin.append((name, index))
    raw, _ = score_responses(context, changed_texts)
    scale = context.roles.normalizations[0].deviation
    metrics: dict[str, ProbeResult] = {}
    for name, probe in PROBES.items():
        changes = [
            (score - pairs.chosen[places[index]]) / scale
            for score, (source, index) in zip(raw.tolist(), origin, strict=True)
            if source == name and np.isfinite(score)
        ]
        if len(changes) > 1:
            metrics[name] = ProbeResult(
                paired_bootstrap_mean(changes, seed), len(changes), probe.description
            )
    return metrics


def benchmark_subsets(recipe: Recipe, prompt: Value) -> Subsets | None:
    """Return the rows of the `evaluation.reward_bench` file; None if it is not set.

    Args:
        recipe: The whole recipe.
        prompt: A prompt of the evaluation; determines whether rows become conversations.

    Raises:
        DataError: The file is missing, damaged, or in another format.
        UnsafeError: The source is a script.
    """
    source = recipe.evaluation.reward_bench
    if source is None:
        return None
    try:
        return read_subsets(source, messages=is_conversation(prompt))
    except DataError as error:
        where = f"evaluation.reward_bench: {error.where or source}"
        raise DataError(error.what, where, error.hint) from error


def _on_subsets(context: EvalContext, subsets: Subsets) -> SubsetAccuracies:
    if subsets.report.dropped:
        context.monitor.warn(f"evaluation.reward_bench: {subsets.report.summary()}")
    if subsets.best_of:
        accuracies = best_of_accuracies(context, subsets.best_of)
        return replace(accuracies, subsets_file=context.recipe.evaluation.reward_bench)
    pairs = score_pairs(context, subsets.rows, "evaluation.reward_bench")
    names = [row["subset"] for row in pairs.rows]
    accuracies = subset_metrics(pairs.chosen, pairs.rejected, names)
    return replace(accuracies, subsets_file=context.recipe.evaluation.reward_bench)
