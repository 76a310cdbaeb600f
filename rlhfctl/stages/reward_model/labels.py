"""What the reward model learns of pairs with several labels, and the trainer that can learn it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from trl import RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from rlhfctl.data.annotations import Votes, comparison_votes
from rlhfctl.errors import DataError
from rlhfctl.evaluation.agreement import label_counts
from rlhfctl.evaluation.annotator_quality import reliability
from rlhfctl.maths.losses import bradley_terry_loss
from rlhfctl.stages.shared.hf_training import ShardedTraining

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray

    from rlhfctl.recipe.schema import RewardModelSection

LABEL_COLUMNS = ("target", "weight")


def aggregated(rows: Dataset, section: RewardModelSection) -> Dataset:
    """Return one row a pair, as `reward_model.labels` says; the rows themselves if `as_given`.

    Chosen is the side with the larger share of votes, or the larger probability by Dawid-Skene; p
    is that share. `majority` keeps no more; `soft` adds `target` p; `weighted` adds `weight`
    |2p - 1|, divided by its mean, so that the learning rate means the same. Ties have no majority
    and no weight: only `soft` keeps them.

    Args:
        rows: Comparisons for training: prompt, chosen, rejected and, where known, annotator.
        section: `labels` and `aggregation`.

    Raises:
        DataError: No pair has two labels, or all pairs are tied, or nobody knows whose labels they
            are and `aggregation` needs it.
    """
    if section.labels == "as_given":
        return rows
    votes = comparison_votes(rows, "data.comparisons")
    if votes.most_labels < 2:
        raise DataError(
            f"reward_model.labels: {section.labels} aggregates several labels a pair, but no two "
            "rows compare the same responses to a prompt",
            "data.comparisons",
            "Set reward_model.labels: as_given, or give each annotator's choice as a row.",
        )
    second = _second_share(votes, section)
    share = np.maximum(second, 1.0 - second)
    kept = np.arange(len(share)) if section.labels == "soft" else np.flatnonzero(share > 0.5)
    if not len(kept):
        raise DataError(
            "every pair is tied, so that no majority is left to learn",
            "data.comparisons",
            "Set reward_model.labels: soft or as_given.",
        )
    clear = 2.0 * share[kept] - 1.0
    weight = clear / clear.mean() if section.labels == "weighted" else None
    found = []
    for at, number in enumerate(kept):
        prompt, *sides = votes.pairs[number]
        winner = int(second[number] > 0.5)
        row: dict[str, Any] = {
            "prompt": prompt,
            "chosen": sides[winner],
            "rejected": sides[1 - winner],
        }
        if section.labels == "soft":
            row["target"] = float(share[number])
        if weight is not None:
            row["weight"] = float(weight[at])
        found.append(row)
    return type(rows).from_list(found)


def _second_share(votes: Votes, section: RewardModelSection) -> NDArray[np.float64]:
    """Return [pairs] how probably the second response is the better one."""
    if section.aggregation == "dawid_skene":
        if len(votes.annotators) < 3:
            raise DataError(
                "Dawid-Skene needs labels of three annotators or more, and the comparisons have "
                f"those of {len(votes.annotators) or 'nobody in particular'}",
                "data.comparisons",
                "Map the column with data.comparisons.columns: {annotator: NAME}, or set "
                "reward_model.aggregation: votes.",
            )
        return reliability(votes).posterior[:, 1]
    counts = label_counts(votes.item, votes.label, 2)
    shares: NDArray[np.float64] = counts[:, 1] / counts.sum(axis=1)
    return shares


class LabelCollator(DataCollatorForPreference):  # type: ignore[misc]
    """TRL's, with the columns `target` and `weight` where rows have them."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a padded batch: chosen rows, then rejected ones."""
        batch: dict[str, Any] = super().torch_call(examples)
        for name in LABEL_COLUMNS:
            if name in examples[0]:
                values = [example[name] for example in examples]
                batch[name] = torch.tensor(values, dtype=torch.float32)
        return batch


class LabelTrainer(ShardedTraining, RewardTrainer):  # type: ignore[misc]
    """TRL's RewardTrainer for labels that may be wrong: smoothing, soft targets, weights.

    Without any of them its loss is TRL's own, computed by TRL.
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
        """Return the mean of `bradley_terry_loss` over a batch, with TRL's centring and metrics."""
        target, weight = (inputs.pop(name, None) for name in LABEL_COLUMNS)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if target is not None or weight is not None or self.smoothing:
            chosen, rejected = outputs.logits.squeeze(-1).chunk(2)
            wrong = self.smoothing if target is None else 1.0 - target
            each = bradley_terry_loss(chosen, rejected, inputs.get("margin", 0.0), wrong)
            loss = (each if weight is None else weight * each).mean()
            centring = self.args.center_rewards_coefficient
            if centring is not None:
                loss = loss + centring * (chosen + rejected).square().mean()
        return (loss, outputs) if return_outputs else loss
