"""Metrics of a reward model on held-out comparisons."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhfctl.data.formatting import encode_comparisons
from rlhfctl.evaluation.preferences import accuracy, accuracy_by_group, longer_wins
from rlhfctl.results.training import RewardModelResult
from rlhfctl.stages.reward_model.scoring import score_ids
from rlhfctl.stages.shared.gold import held_out_gold_comparisons

if TYPE_CHECKING:
    from rlhfctl.data.formatting import Encoded
    from rlhfctl.stages.reward_model.training import TrainedRewardModel
    from rlhfctl.stages.shared.stage_context import StageContext


def evaluate_reward_model(
    context: StageContext, trained: TrainedRewardModel, held_out: Encoded
) -> RewardModelResult:
    """Return accuracies on held-out comparisons, and on gold labels in the embedded world."""
    rows = held_out.dataset
    chosen, rejected = _scores(context, trained.model, rows)
    scores = np.concatenate([chosen, rejected])
    per_annotator = None
    if "annotator" in rows.column_names:
        per_annotator = accuracy_by_group(chosen, rejected, rows["annotator"])
    result = RewardModelResult(
        accuracy=accuracy(chosen, rejected),
        length_accuracy=longer_wins(*_lengths(rows)),
        pairs=len(rows),
        mean_margin=float((chosen - rejected).mean()),
        score_min=float(scores.min()),
        score_max=float(scores.max()),
        train_loss=trained.loss,
        train_rows=trained.rows,
        steps=trained.steps,
        best_step=trained.best_step,
        pass_size=trained.pass_size,
        per_annotator=per_annotator,
    )
    gold = held_out_gold_comparisons(context.recipe)
    if gold is None:
        return result
    length = context.recipe.reward_model.max_length
    encoded = encode_comparisons(gold, context.formatter, length).dataset
    return replace(
        result,
        gold_accuracy=accuracy(*_scores(context, trained.model, encoded)),
        gold_length_accuracy=longer_wins(*_lengths(encoded)),
        gold_pairs=len(encoded),
    )


def _scores(context: StageContext, model: Any, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    size = context.recipe.reward_model.per_device_eval_batch_size
    pad = context.tokenizer.pad_token_id
    chosen = score_ids(model, rows["chosen_ids"], pad, size)
    rejected = score_ids(model, rows["rejected_ids"], pad, size)
    return np.array(chosen), np.array(rejected)


def _lengths(rows: Any) -> tuple[list[int], list[int]]:
    return list(map(len, rows["chosen_ids"])), list(map(len, rows["rejected_ids"]))
