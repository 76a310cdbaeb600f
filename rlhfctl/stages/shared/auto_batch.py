"""Smaller forward passes in training by transformers' trainers, where memory runs out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer, TrainerCallback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.ppo.pass_size import PassSize


class SplitBatches(Trainer):  # type: ignore[misc]
    """Divides each batch of the data loader into forward passes of at most `pass_size` rows.

    Gradients are those of the whole batch, up to rounding, and the order of rows, the number of
    optimizer steps and the checkpoints do not depend on the division.

    Attributes:
        pass_size: Rows (reward model: pairs) per forward pass; None leaves batches whole.
    """

    pass_size: PassSize | None = None
    current_gradient_accumulation_steps: Any
    _total_train_tokens: Any
    _batches: tuple[tuple[dict[str, torch.Tensor], Any], ...] = ()
    _tokens_before = 0

    def training_step(
        self, model: Any, inputs: dict[str, torch.Tensor], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return the loss of a batch, after a backward pass per part.

        If memory runs out, the gradients are of part of the batch, so all batches since the last
        optimizer step are done again.
        """
        if self.pass_size is None:
            whole: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
            return whole
        if not self._batches:
            self._tokens_before = self._total_train_tokens
        self._batches += ((inputs, num_items_in_batch),)
        again = False

        def attempt(rows: int) -> torch.Tensor:
            nonlocal again
            if again:
                model.zero_grad(set_to_none=True)
                self._total_train_tokens = self._tokens_before
                for earlier in self._batches[:-1]:
                    self._step_in_parts(model, *earlier, rows)
            again = True
            return self._step_in_parts(model, *self._batches[-1], rows)

        loss = self.pass_size.run(attempt)
        if self.accelerator.sync_gradients:
            self._batches = ()
        return loss

    def _step_in_parts(
        self, model: Any, inputs: dict[str, torch.Tensor], num_items_in_batch: Any, rows: int
    ) -> torch.Tensor:
        steps, total = self.current_gradient_accumulation_steps, torch.zeros(())
        try:
            for part, share in parts(inputs, rows):
                # The trainer divides a mean over rows by this number, and leaves a sum over tokens.
                self.current_gradient_accumulation_steps = steps / share
                loss = super().training_step(model, part, num_items_in_batch)
                total = total.to(loss.device) + loss
        finally:
            self.current_gradient_accumulation_steps = steps
        return total


def parts(
    inputs: dict[str, torch.Tensor], rows: int
) -> Iterator[tuple[dict[str, torch.Tensor], float]]:
    """Yield a batch in parts, each with its share of the rows.

    Args:
        inputs: Tensors of n rows each; of 2n where n others are pairs (chosen, then rejected).
        rows: Most rows (or pairs) in a part.
    """
    pairs = "labels" not in inputs
    count = len(inputs["input_ids"]) // (2 if pairs else 1)
    for start in range(0, count, rows):
        chosen = torch.arange(start, min(start + rows, count))
        both = torch.cat([chosen, chosen + count])
        part = {
            name: value[(chosen if len(value) == count else both).to(value.device)]
            for name, value in inputs.items()
        }
        yield part, len(chosen) / count


class LongestBatchFirst(TrainerCallback):  # type: ignore[misc]
    """Tries the batch of the longest rows before the first step, to find the size of a pass."""

    def __init__(self, trainer: Any) -> None:
        """Store the trainer, whose `pass_size` is found."""
        self.trainer = trainer

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        """Find the size of a pass; weights, random numbers and metrics stay as they are."""
        trainer = self.trainer
        metrics, tokens = trainer._metrics["train"], trainer._total_train_tokens
        model.train()
        with torch.random.fork_rng():
            trainer.pass_size.run(lambda rows: self._try(model, rows))
        metrics.clear()
        trainer._total_train_tokens = tokens

    def _try(self, model: Any, rows: int) -> None:
        """Run forward and backward passes beside memory of the optimizer's size.

        Raises:
            RuntimeError: Memory ran out.
        """
        trainer = self.trainer
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        try:
            moments = [torch.zeros_like(weight) for weight in trained for _ in range(2)]
            inputs, _ = next(parts(self._longest(), rows))
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(model, trainer._prepare_inputs(inputs))
            trainer.accelerator.backward(loss)
            del moments, loss
        finally:
            model.zero_grad(set_to_none=True)

    def _longest(self) -> dict[str, torch.Tensor]:
        """Return the longest rows as a batch."""
        rows, size = self.trainer.train_dataset, self.trainer.args.per_device_train_batch_size
        columns = [name for name in rows.column_names if name.endswith("_ids")]
        lengths = torch.tensor(
            [sum(map(len, row)) for row in zip(*(rows[c] for c in columns), strict=True)]
        )
        longest = lengths.topk(min(size, len(lengths))).indices.tolist()
        batch: dict[str, torch.Tensor] = self.trainer.data_collator(
            [rows[index] for index in longest]
        )
        return batch
