"""Metrics of a reward model on held-out comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rlhfctl.data.formatting import encode_comparisons
from rlhfctl.evaluation.preferences import accuracy, accuracy_by_group, longer_wins
from rlhfctl.results.io import to_json
from rlhfctl.stages.reward_model.scoring import score_ids
from rlhfctl.stages.shared.gold import held_out_gold_comparisons

if TYPE_CHECKING:
    from rlhfctl.data.formatting import Encoded
    from rlhfctl.stages.shared.stage_context import StageContext


def held_out_metrics(context: StageContext, model: Any, held_out: Encoded) -> dict[str, Any]:
    """Return accuracies on held-out comparisons, and on gold labels in the embedded world."""
    rows = held_out.dataset
    chosen, rejected = _scores(context, model, rows)
    metrics: dict[str, Any] = accuracy(chosen, rejected).metrics("accuracy")
    metrics |= longer_wins(*_lengths(rows)).metrics("length_accuracy")
    metrics["pairs"] = len(rows)
    metrics["mean_margin"] = float((chosen - rejected).mean())
    both = np.concatenate([chosen, rejected])
    metrics |= {"score_min": float(both.min()), "score_max": float(both.max())}
    if "annotator" in rows.column_names:
        groups = accuracy_by_group(chosen, rejected, rows["annotator"])
        metrics["per_annotator"] = {name: to_json(group) for name, group in groups.items()}
    gold = held_out_gold_comparisons(context.recipe)
    if gold is not None:
        length = context.recipe.reward_model.max_length
        encoded = encode_comparisons(gold, context.formatter, length).dataset
        metrics |= accuracy(*_scores(context, model, encoded)).metrics("gold_accuracy")
        metrics |= longer_wins(*_lengths(encoded)).metrics("gold_length_accuracy")
        metrics["gold_pairs"] = len(encoded)
    return metrics


def _scores(context: StageContext, model: Any, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    size = context.recipe.reward_model.per_device_eval_batch_size
    pad = context.tokenizer.pad_token_id
    chosen = score_ids(model, rows["chosen_ids"], pad, size)
    rejected = score_ids(model, rows["rejected_ids"], pad, size)
    return np.array(chosen), np.array(rejected)


def _lengths(rows: Any) -> tuple[list[int], list[int]]:
    return list(map(len, rows["chosen_ids"])), list(map(len, rows["rejected_ids"]))
