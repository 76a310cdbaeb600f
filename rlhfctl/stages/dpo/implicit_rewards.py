"""The rewards that a DPO policy implies: beta times its log-ratio to SFT (Rafailov et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class ImplicitRewards(NamedTuple):
    """Implicit rewards of chosen and rejected responses, [pairs] each, in fp32 on the CPU."""

    chosen: Tensor
    rejected: Tensor


class EncodedPair(TypedDict):
    """A row of encoded comparisons: ids of prompt and response, and the prompt's length."""

    chosen_ids: Sequence[int]
    rejected_ids: Sequence[int]
    prompt_length: int


class SplitPair(TypedDict):
    """The same as TRL's collator takes it."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


class PairCollator:
    """TRL's batches of pairs from rows that hold prompt and response in one list of ids.

    Args:
        collator: TRL's `DataCollatorForPreference`.
    """

    def __init__(self, collator: Any) -> None:
        self.collator = collator

    def __call__(self, rows: Sequence[EncodedPair]) -> dict[str, Tensor]:
        """Return ids and masks, [2 * pairs, longest]: first the chosen, then the rejected."""
        batch: dict[str, Tensor] = self.collator([_split(row) for row in rows])
        return batch


def _split(row: EncodedPair) -> SplitPair:
    start = row["prompt_length"]
    return SplitPair(
        prompt_ids=list(row["chosen_ids"][:start]),
        chosen_ids=list(row["chosen_ids"][start:]),
        rejected_ids=list(row["rejected_ids"][start:]),
    )


@torch.no_grad()
def implicit_rewards(trainer: Any) -> ImplicitRewards:
    """Return the implicit rewards of the trainer's held-out pairs, in their order.

    All processes compute all of them, so that metrics do not depend on their number.

    Args:
        trainer: TRL's DPOTrainer over a `WholeEvaluation`.
    """
    model, chosen, rejected = trainer.model, [], []
    model.eval()
    for batch in trainer.get_eval_dataloader():
        inputs = trainer._prepare_inputs(batch)
        # Without a reference model it is an adapter of the policy's own.
        reference_model = model if trainer.ref_model is None else trainer.ref_model
        reference = torch.cat(trainer.compute_ref_log_probs(reference_model, inputs))
        with trainer.accelerator.autocast():
            policy = _log_probs(model, inputs)
        rewards = trainer.beta * (policy - reference).float().cpu()
        first, second = rewards.chunk(2)
        chosen.append(first)
        rejected.append(second)
    return ImplicitRewards(torch.cat(chosen), torch.cat(rejected))


def _log_probs(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Return the log-probability of each response, [2 * pairs]."""
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    outputs = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        labels=labels,
        fused_lm_head=True,
        use_cache=False,
    )
    log_probs: Tensor = outputs.log_probs.sum(dim=1)
    return log_probs
