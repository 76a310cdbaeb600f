"""Aggregation of several labels per pair, and a trainer for soft and weighted labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from trl import RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from rlhfctl.data.annotations import Votes, comparison_votes
from rlhfctl.data.rankings import require_single_labels
from rlhfctl.errors import DataError
from rlhfctl.evaluation.agreement import label_counts
from rlhfctl.evaluation.annotator_quality import reliability
from rlhfctl.maths.losses import bradley_terry_loss
from rlhfctl.stages.shared.hf_training import StageTraining

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from numpy.typing import NDArray

    from rlhfctl.recipe.training import RewardModelSection

LABEL_COLUMNS = ("target", "weight")


def aggregated(
    rows: Dataset, section: RewardModelSection, say: Callable[[str], None] | None = None
) -> Dataset:
    """Return one row per pair according to `reward_model.labels`; `rows` itself if `as_given`.

    Pairs that are made from rankings have a `weight`: 1 / (number of pairs of the ranking), so that
    each ranking counts alike (Ouyang et al. 2022, equation 1). It is divided by its mean, too.

    The chosen response has the larger share p of votes, or the larger Dawid-Skene probability p.
    `majority` adds no column; `soft` adds `target` p; `weighted` adds `weight` |2p - 1|, divided
    by its mean to keep the learning rate's scale. Ties are kept by `soft` only.

    Args:
        rows: Training comparisons: prompt, chosen, rejected and, if available, annotator.
        section: Settings; `labels` and `aggregation` are read.
        say: Receives a sentence about labels and pairs that are left out.

    Raises:
        DataError: No pair has two labels, all pairs are tied, `aggregation` needs annotators and
            the rows have too few, or the pairs are made from rankings.
    """
    weighted = "weight" in rows.column_names
    if section.labels == "as_given":
        return _with_mean_weight_1(rows) if weighted else rows
    require_single_labels(rows.column_names, section.labels)
    votes = comparison_votes(rows, "data.comparisons")
    if votes.most_labels < 2:
        raise DataError(
            f"reward_model.labels: {section.labels} aggregates several labels per pair, but no two "
            "rows compare the same responses to a prompt",
            "data.comparisons",
            "Set reward_model.labels: as_given, or provide one row per annotator and pair.",
        )
    second = _second_share(votes, section)
    share = np.maximum(second, 1.0 - second)
    pair_indices = (
        np.arange(len(share)) if section.labels == "soft" else np.flatnonzero(share > 0.5)
    )
    if not len(pair_indices):
        raise DataError(
            "every pair is tied, so there is no majority label to train on",
            "data.comparisons",
            "Set reward_model.labels: soft or as_given.",
        )
    ties = len(share) - len(pair_indices)
    if say is not None and ties:
        say(f"{ties:,} of {len(share):,} pairs are tied and left out")
    if say is not None and votes.repeated:
        say(f"{votes.repeated:,} further labels of a pair by the same annotator are left out")
    margin = 2.0 * share[pair_indices] - 1.0
    weight = margin / margin.mean() if section.labels == "weighted" else None
    aggregated_rows = []
    for row_index, pair in enumerate(pair_indices):
        prompt, *sides = votes.pairs[pair]
        winner = int(second[pair] > 0.5)
        row: dict[str, Any] = {
            "prompt": prompt,
            "chosen": sides[winner],
            "rejected": sides[1 - winner],
        }
        if section.labels == "soft":
            row["target"] = float(share[pair])
        if weight is not None:
            row["weight"] = float(weight[row_index])
        aggregated_rows.append(row)
    return type(rows).from_list(aggregated_rows)


def _with_mean_weight_1(rows: Dataset) -> Dataset:
    weights = np.asarray(rows["weight"], dtype=np.float64)
    scaled = (weights / weights.mean()).tolist()
    return rows.remove_columns("weight").add_column("weight", scaled)


def _second_share(votes: Votes, section: RewardModelSection) -> NDArray[np.float64]:
    """Return the probability per pair, [pairs], that the second response is better."""
    if section.aggregation == "dawid_skene":
        if len(votes.annotators) < 3:
            raise DataError(
                "Dawid-Skene needs at least three annotators, and the comparisons name "
                f"{len(votes.annotators)}",
                "data.comparisons",
                "Map the column with data.comparisons.columns: {annotator: NAME}, or set "
                "reward_model.aggregation: votes.",
            )
        return reliability(votes).posterior[:, 1]
    counts = label_counts(votes.item, votes.label, 2)
    shares: NDArray[np.float64] = counts[:, 1] / counts.sum(axis=1)
    return shares


class LabelCollator(DataCollatorForPreference):  # type: ignore[misc]
    """TRL's collator plus the columns `target` and `weight`, if rows have them."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a padded batch: chosen rows first, then rejected rows."""
        batch: dict[str, Any] = super().torch_call(examples)
        for name in LABEL_COLUMNS:
            if name in examples[0]:
                values = [example[name] for example in examples]
                batch[name] = torch.tensor(values, dtype=torch.float32)
        return batch


class LabelTrainer(StageTraining, RewardTrainer):  # type: ignore[misc]
    """TRL's RewardTrainer with label smoothing, soft targets and weights.

    Without them the loss is computed by TRL.
    """

    def __init__(self, *, smoothing: float = 0.0, **rest: Any) -> None:
        pad = rest["processing_class"].pad_token_id
        super().__init__(data_collator=LabelCollator(pad_token_id=pad), **rest)
        self.smoothing = smoothing

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if not set(LABEL_COLUMNS) <= set(self._signature_columns):
            self._signature_columns += LABEL_COLUMNS

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the batch mean of `bradley_terry_loss`, with TRL's centring and metrics."""
        target, weight = (inputs.pop(name, None) for name in LABEL_COLUMNS)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if target is not None or weight is not None or self.smoothing:
            chosen, rejected = outputs.logits.squeeze(-1).chunk(2)
            wrong = self.smoothing if target is None else 1.0 - target
            losses = bradley_terry_loss(chosen, rejected, inputs.get("margin", 0.0), wrong)
            loss = (losses if weight is None else weight * losses).mean()
            centring = self.args.center_rewards_coefficient
            if centring is not None:
                loss = loss + centring * (chosen + rejected).square().mean()
        return (loss, outputs) if return_outputs else loss
