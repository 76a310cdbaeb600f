"""Evaluation of the reward model: accuracy, calibration, length bias and probes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.data.formatter import Pair
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
from rlhfctl.maths.sequences import Sequences
from rlhfctl.results.estimate import GroupAccuracy
from rlhfctl.results.evaluation import (
    HeldOutAccuracies,
    ProbeResult,
    RewardModelEvaluation,
    SubsetAccuracies,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rlhfctl.data.rows import Row, Value
    from rlhfctl.data.subsets import Subsets
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.stages.evaluation.context import EvalContext

_ROWS_ENCODED_AT_ONCE = 256


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


@dataclass(frozen=True)
class Pairs:
    """Comparisons with scores of the reward model.

    Attributes:
        rows: [pairs] comparisons that fit the reward model's maximum length.
        chosen: [pairs] raw scores of the chosen responses.
        rejected: [pairs] raw scores of the rejected ones.
        chosen_lengths: [pairs] tokens of the chosen responses, including the end token.
        rejected_lengths: [pairs] tokens of the rejected responses.
    """

    rows: Sequence[Row]
    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]
    chosen_lengths: NDArray[np.float64]
    rejected_lengths: NDArray[np.float64]


def score_pairs(context: EvalContext, rows: Sequence[Row], what: str) -> Pairs:
    """Score both responses of each comparison; leave out pairs that are too long, with a warning.

    Args:
        context: The evaluation, with a reward model.
        rows: Rows with `prompt`, `chosen` and `rejected`.
        what: Name of the rows in messages.
    """
    texts = [(row["prompt"], row[side]) for row in rows for side in ("chosen", "rejected")]
    scores, lengths = score_responses(context, texts)
    scores, lengths = scores.reshape(-1, 2), lengths.reshape(-1, 2)
    complete = np.isfinite(lengths).all(axis=1)
    if not complete.all():
        context.monitor.warn(
            f"{what}: {int((~complete).sum()):,} of {len(rows):,} rows are longer than "
            f"reward_model.max_length ({context.recipe.reward_model.max_length:,}), or refused by "
            "the chat template, and left out"
        )
    return Pairs(
        [rows[index] for index in np.flatnonzero(complete).tolist()],
        *scores[complete].T,
        *lengths[complete].T,
    )


def score_responses(
    context: EvalContext, texts: Sequence[tuple[Value, Value]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return raw scores and token lengths of responses, terminated as in training.

    Args:
        context: The evaluation, with a reward model.
        texts: [responses] prompt and response.

    Returns:
        Scores and lengths, [responses] each; NaN where prompt and response exceed
        `reward_model.max_length` or cannot be rendered.
    """
    roles, section = context.roles, context.recipe.reward_model
    formatter = context.session.formatter_for("comparisons")
    scores, lengths = np.full(len(texts), np.nan), np.full(len(texts), np.nan)
    context.monitor.start("eval reward model", len(texts), "scores")
    for start in range(0, len(texts), _ROWS_ENCODED_AT_ONCE):
        part = texts[start : start + _ROWS_ENCODED_AT_ONCE]
        fitting = {
            index: pair
            for index, pair in enumerate(formatter.each_pair(part))
            if isinstance(pair, Pair) and len(pair.prompt + pair.response) <= section.max_length
        }
        if fitting:
            places = start + np.array(list(fitting))
            sequences = Sequences.from_lists(
                [pair.prompt for pair in fitting.values()],
                [pair.response for pair in fitting.values()],
                roles.pad_token_id,
                roles.device,
            )
            lengths[places] = sequences.response_lengths.tolist()
            for rows, chunk in sequences.in_chunks(section.per_device_eval_batch_size):
                scores[places[rows.tolist()]] = roles.raw_scores(chunk).tolist()
        context.monitor.step(start + len(part), {})
    context.monitor.finish()
    return scores, lengths


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
                changed_texts.append((row["prompt"], _as(row["chosen"], changed)))
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


def _as(like: Value, text: str) -> Value:
    """Return the text in the format of another response."""
    return [like[-1] | {"content": text}] if is_conversation(like) else text


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
    pairs = score_pairs(context, subsets.rows, "evaluation.reward_bench")
    names = [row["subset"] for row in pairs.rows]
    accuracies = subset_metrics(pairs.chosen, pairs.rejected, names)
    return replace(accuracies, subsets_file=context.recipe.evaluation.reward_bench)
