"""Packing of several demonstrations into one sequence, by TRL's best-fit decreasing strategy.

A pack is a sequence without padding whose position ids begin anew with each row. transformers
makes the attention mask of them, and the collator excludes the first token of each row from the
loss, as there is no row before it (TRL, `DataCollatorForLanguageModeling`). Rows are never cut,
since those over `sft.max_length` are dropped before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import torch

from rlhfctl.errors import RecipeError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from rlhfctl.recipe.training import SFTSection

_ROW = 8
_MOST_CHANGE = 0.01


def packing_arguments(section: SFTSection) -> dict[str, bool | int | str]:
    """Return the arguments of TRL's configuration: packs are as long as the longest row may be."""
    if not section.packing:
        return {"packing": False}
    return {
        "packing": True,
        "packing_strategy": "bfd",
        "max_length": section.max_length,
        # Held-out losses stay comparable with those of a training without packs.
        "eval_packing": False,
    }


@dataclass(frozen=True)
class Packs:
    """Packs of a training set.

    Attributes:
        count: Number of packs.
        fill_ratio: Share of their tokens that are of rows, of `count` x `max_length`.
    """

    count: int
    fill_ratio: float

    @classmethod
    def of(cls, trainer: Any) -> Packs:
        """Return the packs of a trainer's training set."""
        rows, longest = trainer.train_dataset, trainer.args.max_length
        tables = rows.with_format("arrow").select_columns(["input_ids"]).iter(batch_size=10_000)
        tokens = sum(pc.sum(pc.list_value_length(table["input_ids"])).as_py() for table in tables)
        return cls(len(rows), tokens / (len(rows) * longest))


class UnpackedEvaluation:
    """Evaluates padded rows while packs are trained on, in the batches of any other training."""

    data_collator: Any

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return a loader of padded batches."""
        training = self.data_collator
        if not training.padding_free:
            return super().get_eval_dataloader(eval_dataset)  # type: ignore[misc, no-any-return]
        self.data_collator = replace(training, padding_free=False)
        try:
            loader: DataLoader[Any] = super().get_eval_dataloader(eval_dataset)  # type: ignore[misc]
        finally:
            self.data_collator = training
        return loader


@torch.no_grad()
def require_separate_rows(trainer: Any, attention: str | None) -> None:
    """Refuse a model in which the rows of a pack see each other.

    The logits of a row are computed behind two different rows. Implementations that read no
    position ids, such as kernels of one's own, differ here.

    Args:
        trainer: TRL trainer with packs.
        attention: The recipe's `attn_implementation`.

    Raises:
        RecipeError: The logits depend on the row before.
    """
    model = trainer.model
    tokens = torch.arange(2 * _ROW) + model.config.get_text_config().vocab_size // 3
    first, other, second = tokens[:_ROW], tokens.flip(0)[:_ROW], tokens[4 : 4 + _ROW]
    was_training = model.training
    model.eval()
    logits = []
    for before in (first, other):
        ids = torch.cat([before, second]).tolist()
        row = {"input_ids": ids, "labels": ids, "seq_lengths": [_ROW, _ROW]}
        inputs = trainer._prepare_inputs(trainer.data_collator([row]))
        inputs.pop("labels")
        with trainer.compute_loss_context_manager():
            logits.append(model(**inputs, use_cache=False).logits[0, _ROW:].float())
    model.train(was_training)
    change = float((logits[0] - logits[1]).abs().max() / logits[0].std())
    if not change <= _MOST_CHANGE:
        name = attention or "the default attention"
        raise RecipeError(
            f"rows of a pack see each other with {name} of {type(model).__name__}",
            "sft.packing",
            "use model.attn_implementation: sdpa or flash_attention_2, or sft.packing: false",
        )
