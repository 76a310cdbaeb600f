"""Batches of rows of about the same length, in an order that a resumed training repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset

GROUPED = "group_by_length"
"""Value of transformers' `train_sampling_strategy`."""
_ROWS = 10_000


class SeededLengthGroups(LengthGroupedSampler):  # type: ignore[misc]
    """transformers' sampler, with random numbers of its own per epoch.

    transformers draws from the global generator, whose state at the start of an epoch is another
    one after a resume in the middle of the epoch.

    Args:
        batch_size: Rows per optimizer step.
        lengths: [rows] tokens.
        seed: Seed of the first epoch; later ones count from it.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths)
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch; accelerate calls it."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self._seed + self._epoch)
        yield from super().__iter__()


class LengthGroups(Trainer):  # type: ignore[misc]
    """Groups rows by the tokens of their longest sequence, if the arguments ask for it.

    transformers takes the lengths from a column that it has removed by then, or from `input_ids`,
    which pairs do not have.
    """

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.args.train_sampling_strategy != GROUPED:
            return super()._get_train_sampler(train_dataset)
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        rows = self.train_dataset
        return SeededLengthGroups(size, row_lengths(rows), self.args.data_seed or self.args.seed)

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        """Return the rows in order, so that metrics do not depend on the groups."""
        return SequentialSampler(eval_dataset)


def row_lengths(rows: Dataset) -> list[int]:
    """Return the tokens of each row's longest column of ids, [rows]."""
    import pyarrow.compute as pc

    names = [name for name in rows.column_names if name.endswith("_ids")]
    lengths: list[int] = []
    for table in rows.with_format("arrow").select_columns(names).iter(batch_size=_ROWS):
        columns = [pc.list_value_length(table[name]).to_pylist() for name in names]
        lengths += map(max, zip(*columns, strict=True))
    return lengths
