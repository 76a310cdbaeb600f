"""TRL's DPOTrainer over an SFT checkpoint, which is both the start and the frozen reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from peft import get_peft_model
from transformers import set_seed
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from rlhfctl.models import adapters, new_tokens
from rlhfctl.models.base import load_causal_lm
from rlhfctl.models.linear import use_fast_cpu_layers
from rlhfctl.models.provenance import check_fits, check_tokens
from rlhfctl.models.scan import scan_folder
from rlhfctl.stages.dpo.implicit_rewards import PairCollator
from rlhfctl.stages.shared.hf_training import StageTraining, training_arguments

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset

    from rlhfctl.recipe.schema import LoraSection
    from rlhfctl.stages.shared.stage_context import StageContext

REFERENCE_ADAPTER = "ref"
"""TRL's name for the frozen copy of an adapter that is trained on."""


class PairTrainer(StageTraining, DPOTrainer):  # type: ignore[misc]
    """TRL's trainer on rows of token ids, which it would otherwise tokenise itself."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        """Leave the rows as they are: the formatter has made the ids, as for every stage."""
        return dataset


def new_trainer(
    context: StageContext, sft: Path, train: Dataset, held_out: Dataset, output: Path
) -> Any:
    """Return the trainer of the SFT policy, by its adapter or by all weights.

    Args:
        context: Tokenizer and recipe.
        sft: SFT checkpoint.
        train: Encoded comparisons to train on.
        held_out: Encoded held-out comparisons.
        output: Folder of the stage.

    Raises:
        CheckpointError: The SFT checkpoint is damaged, or has another base or rank.
        UnsafeError: It would run code.
    """
    recipe = context.recipe
    set_seed(recipe.seed)
    scan_folder(sft, remote_code=recipe.model.trust_remote_code)
    check_tokens(sft, context.tokenizer, context.stop_token_ids, recipe.model.chat_template_kwargs)
    lora = recipe.lora
    model = _whole(context, sft) if lora is None else _adapted(context, lora, sft)
    trainer = PairTrainer(
        model=model,
        ref_model=_whole(context, sft) if lora is None else None,
        args=DPOConfig(
            **training_arguments(recipe.dpo, recipe, output),
            beta=recipe.dpo.beta,
            loss_type=[recipe.dpo.loss_type],
            remove_unused_columns=False,
        ),
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=context.tokenizer,
        data_collator=PairCollator(
            DataCollatorForPreference(pad_token_id=context.tokenizer.pad_token_id)
        ),
    )
    if lora is None:
        trainer.ref_model.requires_grad_(requires_grad=False)
        use_fast_cpu_layers(trainer.ref_model)
    return trainer


def start_at_sft(trainer: Any, sft: Path) -> None:
    """Give policy and reference the exact weights of the SFT adapter.

    On a quantised base TRL 1.16 rounds the policy's to bfloat16 and not the reference's, so that
    their log-ratio would not start at 0.

    Args:
        trainer: Result of `new_trainer`, with trained weights in single precision.
        sft: SFT checkpoint; whole models start alike anyway.
    """
    model = trainer.model
    if not adapters.is_adapter(sft):
        return
    weights = adapters.read_weights(sft)
    new_tokens.drop_rows(weights)
    for name in ("default", REFERENCE_ADAPTER):
        adapters.set_weights(model, dict(weights), name, sft)


def _adapted(context: StageContext, lora: LoraSection, sft: Path) -> Any:
    """Return the base with the SFT adapter, which is trained on; rows of new tokens stay fixed."""
    recipe = context.recipe
    adapters.check_rank(sft, lora)
    weights = adapters.read_weights(sft)
    base = load_causal_lm(recipe.model)
    ids = new_tokens.new_token_ids(recipe.model)
    new_tokens.resize(base, ids)
    new_tokens.take_rows(base, weights, ids)
    check_fits(sft, context.provenance("dpo", base))
    model = get_peft_model(base, adapters.new_config(lora, "CAUSAL_LM"))
    adapters.set_weights(model, weights, "default", sft)
    return model


def _whole(context: StageContext, sft: Path) -> Any:
    return load_causal_lm(context.recipe.model, str(sft), dtype=torch.float32)
