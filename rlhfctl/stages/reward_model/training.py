"""Training of one reward model by TRL, from the SFT checkpoint with a new score head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft import get_peft_model
from transformers import set_seed
from trl import RewardConfig

from rlhfctl.errors import DataError
from rlhfctl.models import adapters, new_tokens, sharding
from rlhfctl.models.heads import initialise_score_head
from rlhfctl.models.provenance import check_fits, check_tokens
from rlhfctl.models.scan import scan_folder
from rlhfctl.models.scorer import head_of, load_scorer
from rlhfctl.run import stop
from rlhfctl.stages.reward_model.labels import LABEL_COLUMNS, LabelTrainer
from rlhfctl.stages.shared.finite import require_finite_weights
from rlhfctl.stages.shared.hf_training import make_ready, newest_checkpoint, training_arguments

if TYPE_CHECKING:
    from pathlib import Path

    from rlhfctl.data.formatting import Encoded
    from rlhfctl.run.monitor import Monitor
    from rlhfctl.stages.shared.stage_context import StageContext


@dataclass(frozen=True)
class TrainedRewardModel:
    """A trained reward model.

    Attributes:
        model: Sequence classifier with one label, adapted or not.
        loss: Mean training loss.
        rows: Comparisons trained on.
        steps: Optimiser steps.
        best_step: Steps after which `load_best_model_at_end` took the weights; None without it.
        pass_size: Pairs per forward pass; None without `auto_batch`.
    """

    model: Any
    loss: float
    rows: int
    steps: int
    best_step: int | None
    pass_size: int | None


def train(
    context: StageContext,
    sft: Path,
    rows: Encoded,
    seed: int,
    staging_folder: Path,
    monitor: Monitor,
    held_out: Encoded | None = None,
) -> TrainedRewardModel:
    """Train in all processes, from the newest checkpoint if there is one.

    Afterwards every process holds the whole base, so that process 0 can run alone.

    Args:
        context: Tokenizer and recipe.
        sft: SFT checkpoint to start from.
        rows: Encoded comparisons.
        seed: Seed of the score head and the order of rows.
        staging_folder: Folder of the trainer's `checkpoints`.
        monitor: Receives every logged step.
        held_out: Encoded comparisons for evaluations during training; None without them.

    Raises:
        DataError: `use_margin` is set, and the rows have no margins.
        CheckpointError: The SFT checkpoint is damaged, or has another base or rank.
        DivergedError: The loss is not finite.
    """
    section = context.recipe.reward_model
    set_seed(seed)
    model = _model(context, sft, seed)
    trainer = LabelTrainer(
        smoothing=section.label_smoothing,
        model=model,
        args=RewardConfig(
            **training_arguments(section, context.recipe, staging_folder)
            | {"seed": seed, "data_seed": seed},
            center_rewards_coefficient=section.center_rewards_coefficient,
        ),
        train_dataset=_columns(rows, use_margin=section.use_margin),
        eval_dataset=None
        if held_out is None
        else _columns(held_out, use_margin=section.use_margin),
        processing_class=context.tokenizer,
    )
    losses = make_ready(
        *(trainer, "rm", monitor, section),
        shard=sharding.is_requested(context.recipe),
        auto_batch=context.recipe.auto_batch,
    )
    with stop.deferred(monitor.note):
        result = trainer.train(resume_from_checkpoint=newest_checkpoint(staging_folder, monitor))
    require_finite_weights(trainer, "rm")
    losses.discard_clock()
    stop.check()
    sharding.gather_base(trainer.model)
    model = trainer.model
    if context.recipe.lora is not None:
        # Drop the trainer's autocast: evaluation and PPO compute in the weights' own precision.
        model = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return TrainedRewardModel(
        model,
        result.training_loss,
        len(rows.dataset),
        result.global_step,
        trainer.state.best_global_step,
        trainer.pass_size.rows if trainer.pass_size is not None else None,
    )


def _model(context: StageContext, sft: Path, seed: int) -> Any:
    """Return the base with the SFT adapter's weights and a new score head."""
    recipe, pad = context.recipe, context.tokenizer.pad_token_id
    scan_folder(sft, remote_code=recipe.model.trust_remote_code)
    check_tokens(
        sft,
        context.tokenizer,
        context.stop_token_ids,
        context.recipe.model.chat_template_kwargs,
    )
    if recipe.lora is None:
        model = load_scorer(recipe.model, pad, str(sft), dtype=torch.float32)
        initialise_score_head(head_of(model), seed)
        return model
    adapters.check_rank(sft, recipe.lora)
    weights = adapters.read_weights(sft)
    base = load_scorer(recipe.model, pad)
    ids = new_tokens.new_token_ids(recipe.model)
    new_tokens.resize(base, ids)
    new_tokens.take_rows(base, weights, ids)
    check_fits(sft, context.provenance("rm", base))
    initialise_score_head(head_of(base), seed)
    score = {adapters.head_key(base.head_name, "weight"): head_of(base).weight.detach().clone()}
    model = get_peft_model(base, adapters.new_config(recipe.lora, "SEQ_CLS", base.head_name))
    adapters.set_weights(model, weights | score, "default", sft)
    return model


def _columns(encoded: Encoded, *, use_margin: bool) -> Any:
    names = ["chosen_ids", "rejected_ids"]
    if use_margin:
        if "margin" not in encoded.dataset.column_names:
            raise DataError(
                "reward_model.use_margin is set, but the comparisons have no margin column",
                "data.comparisons",
                "Map it in data.comparisons.columns, or remove use_margin.",
            )
        names.append("margin")
    names += [name for name in LABEL_COLUMNS if name in encoded.dataset.column_names]
    return encoded.dataset.select_columns(names)
