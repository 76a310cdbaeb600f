"""Supervised fine-tuning on demonstrations, by TRL's SFTTrainer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import get_peft_model
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from rlhfctl.data.formatting import encode_demonstrations, token_count
from rlhfctl.data.row_counts import bad_limit
from rlhfctl.data.sources import load_demonstrations
from rlhfctl.models import adapters, new_tokens, sharding
from rlhfctl.models.base import load_causal_lm
from rlhfctl.models.provenance import check_fits
from rlhfctl.models.scan import scan_folder
from rlhfctl.ppo.processes import Processes
from rlhfctl.results.io import to_json
from rlhfctl.results.training import SFTResult
from rlhfctl.run import stop
from rlhfctl.run.disk import space_for
from rlhfctl.run.manifest import StageOutcome
from rlhfctl.stages.sft.packing import (
    Packs,
    UnpackedEvaluation,
    packing_arguments,
    require_separate_rows,
)
from rlhfctl.stages.shared.disk_space import weight_bytes
from rlhfctl.stages.shared.finite import require_finite, require_finite_weights
from rlhfctl.stages.shared.hf_training import (
    StageTraining,
    evaluate_untrained,
    make_ready,
    newest_checkpoint,
    training_arguments,
)
from rlhfctl.stages.shared.model_card import write_model_card
from rlhfctl.stages.shared.stage_context import (
    StageContext,
    open_stage_context,
    report_rows,
    save_trained,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datasets import Dataset

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor


class _Trainer(UnpackedEvaluation, StageTraining, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer, with metrics that do not depend on the number of processes, nor on packing."""


def run(recipe: Recipe, inputs: Mapping[str, Path], output: Path, monitor: Monitor) -> StageOutcome:
    """Train an SFT adapter, or all weights, and write it with its held-out metrics.

    Args:
        recipe: Recipe; `model`, `lora`, `data.demonstrations` and `sft` are read.
        inputs: Unused.
        output: Empty folder.
        monitor: Receives every logged step.

    Raises:
        RecipeError: The base cannot be sharded over the processes as requested.
        UsageError: The launcher asks for FSDP version 1.
        DataError: No usable demonstrations.
        RecipeError: Rows of a pack would see each other in this model.
        CheckpointError: `sft.init_from` does not fit.
        DivergedError: The loss is not finite.
        DiskFullError: A checkpoint or the result does not fit on the disk.
    """
    shard = sharding.is_requested(recipe)
    processes = Processes()
    context = open_stage_context(recipe, monitor)
    rows = load_demonstrations(recipe, monitor)
    encode = partial(
        encode_demonstrations,
        formatter=context.formatter_for("demonstrations"),
        max_length=recipe.sft.max_length,
        bad_limit=bad_limit(recipe.data),
        assistant_turns=recipe.sft.assistant_turns,
        progress=monitor,
    )
    train, held_out = encode(rows.train), encode(rows.held_out)
    counts = report_rows(monitor, "demonstrations", rows.report, (train.report, held_out.report))

    trainer = new_trainer(context, train.dataset, held_out.dataset, output)
    model = trainer.model
    packs = _packs(trainer, recipe, monitor, len(train.dataset)) if recipe.sft.packing else None
    losses = make_ready(
        trainer, "sft", monitor, recipe.sft, shard=shard, auto_batch=recipe.auto_batch
    )
    with stop.deferred(monitor.note):
        before = evaluate_untrained(trainer)
        result = trainer.train(resume_from_checkpoint=newest_checkpoint(output, monitor))
        require_finite_weights(trainer, "sft")
        after = trainer.evaluate()
    require_finite(trainer, "sft", {"held-out loss": after["eval_loss"]}, "after training")

    tokens = token_count(train.dataset) * recipe.sft.num_train_epochs
    if not processes.is_main:
        return StageOutcome({})
    metrics = SFTResult(
        eval_loss_before=before["eval_loss"],
        eval_loss=after["eval_loss"],
        token_accuracy_before=before["eval_mean_token_accuracy"],
        token_accuracy=after["eval_mean_token_accuracy"],
        train_loss=result.training_loss,
        train_rows=len(train.dataset),
        held_out_rows=len(held_out.dataset),
        steps=result.global_step,
        best_step=trainer.state.best_global_step,
        pass_size=trainer.pass_size.rows if trainer.pass_size is not None else None,
        packs=packs.count if packs is not None else None,
        fill_ratio=packs.fill_ratio if packs is not None else None,
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        tokens_per_second=tokens / (losses.earlier_seconds + result.metrics["train_runtime"]),
    )
    with space_for(output, weight_bytes(trainer.model), "the result of sft"):
        save_trained(context, trainer.model, output, "sft", "CAUSAL_LM")
        write_model_card(output, "sft", context, "CAUSAL_LM", metrics)
    losses.discard_clock()
    return StageOutcome(to_json(metrics), {"demonstrations": counts.record()})


def _packs(trainer: Any, recipe: Recipe, monitor: Monitor, rows: int) -> Packs:
    """Return the packs of the training rows; raises as `require_separate_rows`."""
    require_separate_rows(trainer, recipe.model.attn_implementation)
    packs = Packs.of(trainer)
    monitor.note(
        f"packing: {rows:,} rows in {packs.count:,} sequences of up to {recipe.sft.max_length:,} "
        f"tokens, {100 * packs.fill_ratio:.1f} % full"
    )
    return packs


def new_trainer(context: StageContext, train: Dataset, held_out: Dataset, output: Path) -> Any:
    """Return TRL's trainer of a new adapter, or of all weights.

    Args:
        context: Tokenizer and recipe.
        train: Encoded training rows.
        held_out: Encoded held-out rows.
        output: Folder of the stage.
    """
    recipe = context.recipe
    set_seed(recipe.seed)
    return _Trainer(
        model=_model(context),
        args=SFTConfig(
            **training_arguments(recipe.sft, recipe, output) | packing_arguments(recipe.sft),
            completion_only_loss=True,
            neftune_noise_alpha=recipe.sft.neftune_noise_alpha,
        ),
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=context.tokenizer,
    )


def _model(context: StageContext) -> Any:
    recipe = context.recipe
    base = load_causal_lm(recipe.model, dtype=torch.float32 if recipe.lora is None else None)
    ids = new_tokens.new_token_ids(recipe.model)
    new_tokens.resize(base, ids)
    if recipe.lora is None:
        return base
    config = adapters.new_config(recipe.lora, "CAUSAL_LM")
    config.trainable_token_indices = new_tokens.trainable_indices(base, ids)
    model = get_peft_model(base, config)
    new_tokens.expose_head_bias(model)
    if recipe.sft.init_from is not None:
        folder = Path(recipe.sft.init_from)
        scan_folder(folder)
        adapters.check_rank(folder, recipe.lora)
        check_fits(folder, context.provenance("sft", base))
        adapters.set_weights(model, adapters.read_weights(folder), "default", folder)
    return model
