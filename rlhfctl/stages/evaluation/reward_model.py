"""The reward model on trial: is it right, is it calibrated, does it go by length, can it be fooled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhfctl.data.rows import content, is_conversation
from rlhfctl.data.sources import EMBEDDED
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

    from rlhfctl.data.rows import Value
    from rlhfctl.data.subsets import Subsets
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.stages.evaluation.context import EvalContext

_ROWS_ENCODED_AT_ONCE = 256


def evaluate_reward_model(context: EvalContext) -> RewardModelEvaluation | None:
    """Return the evaluation of the reward model; None without one.

    Held-out comparisons are left out where they are the embedded world's and the prompts are not:
    then they are only the recipe's default.

    Raises:
        DataError: No usable comparisons.
        DivergedError: A score is not finite.
    """
    if "rm" not in context.inputs:
        return None
    data = context.recipe.data
    held_out = benchmark = None
    if data.comparisons.source != EMBEDDED or data.prompts.source == EMBEDDED:
        held_out = _on_comparisons(context)
    if context.subsets is not None:
        benchmark = _on_subsets(context, context.subsets)
    return RewardModelEvaluation(held_out, benchmark) if held_out or benchmark else None


@dataclass(frozen=True)
class Pairs:
    """Comparisons with what the reward model says of them.

    Attributes:
        rows: [pairs] the comparisons, those too long for the reward model left out.
        chosen: [pairs] raw scores of the chosen responses.
        rejected: [pairs] raw scores of the rejected ones.
        chosen_lengths: [pairs] tokens of the chosen responses, the end among them.
        rejected_lengths: [pairs] tokens of the rejected ones.
    """

    rows: Sequence[dict[str, Any]]
    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]
    chosen_lengths: NDArray[np.float64]
    rejected_lengths: NDArray[np.float64]


def score_pairs(context: EvalContext, rows: Sequence[dict[str, Any]], what: str) -> Pairs:
    """Score both responses of comparisons; a pair of which one is too long is left out, and told.

    Args:
        context: With the reward model.
        rows: `prompt`, `chosen` and `rejected`, and whatever else.
        what: The rows' name, for the user.
    """
    asked = [(row["prompt"], row[side]) for row in rows for side in ("chosen", "rejected")]
    scores, lengths = score_responses(context, asked)
    scores, lengths = scores.reshape(-1, 2), lengths.reshape(-1, 2)
    kept = np.isfinite(lengths).all(axis=1)
    if not kept.all():
        context.monitor.warn(
            f"{what}: {int((~kept).sum()):,} of {len(rows):,} rows are longer than "
            f"reward_model.max_length ({context.recipe.reward_model.max_length:,}) and left out"
        )
    return Pairs(
        [rows[at] for at in np.flatnonzero(kept).tolist()],
        *scores[kept].T,
        *lengths[kept].T,
    )


def score_responses(
    context: EvalContext, asked: Sequence[tuple[Value, Value]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return raw scores and lengths in tokens of responses, ended as in training.

    Args:
        context: With the reward model.
        asked: [responses] prompt and response.

    Returns:
        Two [responses]; NaN where prompt and response are longer than the reward model was
        trained on.
    """
    roles, section = context.roles, context.recipe.reward_model
    scores, lengths = np.full(len(asked), np.nan), np.full(len(asked), np.nan)
    context.monitor.start("eval reward model", len(asked), "scores")
    for start in range(0, len(asked), _ROWS_ENCODED_AT_ONCE):
        part = asked[start : start + _ROWS_ENCODED_AT_ONCE]
        pairs = list(context.session.formatter.pairs(part))
        kept = [at for at, pair in enumerate(pairs) if sum(map(len, pair)) <= section.max_length]
        if kept:
            places = start + np.array(kept)
            sequences = Sequences.from_lists(
                [pairs[at][0] for at in kept],
                [pairs[at][1] for at in kept],
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
        margins = [row["margin"] for row in pairs.rows]
        per_margin = accuracy_by_margin(chosen, rejected, margins)
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
    """Return by how much each probe changes the normalised score of chosen responses."""
    seed, wanted = context.recipe.seed, context.recipe.evaluation.probes
    taken = range(min(wanted, len(pairs.rows)))
    # One good response a prompt, so that "another" one is another prompt's.
    first = {prompt_key(pairs.rows[at]["prompt"]): at for at in reversed(taken)}
    places = sorted(first.values())
    rows = [pairs.rows[at] for at in places]
    texts = [content(row["chosen"]) for row in rows]
    asked: list[tuple[Value, Value]] = []
    origin: list[tuple[str, int]] = []
    for name, probe in PROBES.items():
        for at, row in enumerate(rows):
            changed = probe.change(texts, at, seed + at)
            if changed is not None:
                asked.append((row["prompt"], _as(row["chosen"], changed)))
                origin.append((name, at))
    raw, _ = score_responses(context, asked)
    scale = context.roles.normalizations[0].deviation
    metrics: dict[str, ProbeResult] = {}
    for name, probe in PROBES.items():
        changes = [
            (score - pairs.chosen[places[at]]) / scale
            for score, (of, at) in zip(raw.tolist(), origin, strict=True)
            if of == name and np.isfinite(score)
        ]
        if len(changes) > 1:
            metrics[name] = ProbeResult(
                paired_bootstrap_mean(changes, seed), len(changes), probe.description
            )
    return metrics


def _as(like: Value, text: str) -> Value:
    """Return the text in the form of another response."""
    return [like[-1] | {"content": text}] if is_conversation(like) else text


def benchmark_subsets(recipe: Recipe, prompt: Value) -> Subsets | None:
    """Return the rows of the file that `evaluation.reward_bench` names; None where it names none.

    Args:
        recipe: The whole recipe.
        prompt: One of the evaluation's, which tells whether the models read conversations.

    Raises:
        DataError: The file is missing, damaged, or of another form.
        UnsafeError: It is a script.
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
