"""Settings, monitoring and checkpoints shared by the stages that use TRL's trainers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from rlhfctl.models.adapters import restore_float32
from rlhfctl.models.base import require_gradient_checkpointing
from rlhfctl.models.device import trainer_precision
from rlhfctl.models.linear import use_fast_cpu_layers
from rlhfctl.models.sharding import average_gradients, is_sharded, shard_base
from rlhfctl.ppo.pass_size import PassSize, require_single_process
from rlhfctl.ppo.processes import Processes
from rlhfctl.run.files import CHECKPOINTS
from rlhfctl.run.memory import peak_memory_bytes
from rlhfctl.stages.shared.auto_batch import LongestBatchFirst, SplitBatches
from rlhfctl.stages.shared.disk_space import SpaceForCheckpoints, require_space_for_training
from rlhfctl.stages.shared.finite import FiniteTraining
from rlhfctl.stages.shared.held_out_training import HeldOutEvaluations, InterruptibleEvaluation
from rlhfctl.stages.shared.hf_checkpoints import SealCallback, newest_valid
from rlhfctl.stages.shared.length_groups import GROUPED, LengthGroups
from rlhfctl.stages.shared.resume_state import require_plain_state
from rlhfctl.stages.shared.resumed_settings import ResumedSettings
from rlhfctl.stages.shared.stopping import StopCallback
from rlhfctl.stages.shared.training_loss import LossCallback

if TYPE_CHECKING:
    from pathlib import Path

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.recipe.training import TrainingSection
    from rlhfctl.run.monitor import Monitor

_SHOWN = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "mean_token_accuracy": "token_accuracy",
    "entropy": "entropy",
    "accuracy": "accuracy",
    "margin": "margin",
    "mean_reward": "mean_score",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "logps/chosen": "chosen_log_prob",
    "logps/rejected": "rejected_log_prob",
    "num_tokens": "tokens",
    "epoch": "epoch",
}
_SHOWN_OF_EVALUATIONS = {
    "eval_loss": "eval_loss",
    "eval_mean_token_accuracy": "eval_token_accuracy",
    "eval_accuracy": "eval_accuracy",
    "eval_rewards/accuracies": "eval_accuracy",
}


class MonitorCallback(TrainerCallback):  # type: ignore[misc]
    """Passes a trainer's metrics to a monitor."""

    def __init__(self, stage: str, monitor: Monitor) -> None:
        self.stage = stage
        self.monitor = monitor
        self.started = time.perf_counter()
        self.in_training = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the monitor with the number of optimiser steps."""
        self.started = time.perf_counter()
        self.in_training = True
        self.monitor.start(self.stage, state.max_steps, "steps")

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Pass on metrics of training, and of the evaluations within it."""
        logs = logs or {}
        if self.in_training and "eval_loss" in logs:
            shown = _SHOWN_OF_EVALUATIONS.items()
            evaluated = {ours: float(logs[theirs]) for theirs, ours in shown if theirs in logs}
            self.monitor.step(state.global_step, evaluated)
        if "loss" not in logs:
            return
        metrics = {ours: float(logs[theirs]) for theirs, ours in _SHOWN.items() if theirs in logs}
        metrics |= {
            "tokens_per_second": metrics.get("tokens", 0.0) / (time.perf_counter() - self.started),
            "memory_bytes": peak_memory_bytes(),
        }
        self.monitor.step(state.global_step, metrics)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the monitor's phase."""
        self.in_training = False
        self.monitor.finish()


def training_arguments(section: TrainingSection, recipe: Recipe, output: Path) -> dict[str, Any]:
    """Return the arguments that TRL's configurations take from a recipe section."""
    scheduler_options = (
        {"min_lr_rate": 0.1} if section.lr_scheduler_type == "cosine_with_min_lr" else {}
    )
    return {
        "output_dir": str(output / CHECKPOINTS),
        "learning_rate": section.learning_rate,
        "num_train_epochs": float(section.num_train_epochs),
        "per_device_train_batch_size": section.per_device_train_batch_size,
        "per_device_eval_batch_size": section.per_device_eval_batch_size,
        "gradient_accumulation_steps": section.gradient_accumulation_steps,
        "lr_scheduler_type": section.lr_scheduler_type,
        "lr_scheduler_kwargs": scheduler_options,
        "warmup_steps": float(section.warmup_ratio),
        "weight_decay": section.weight_decay,
        "max_grad_norm": section.max_grad_norm,
        "gradient_checkpointing": section.gradient_checkpointing,
        "optim": section.optim,
        "logging_steps": section.logging_steps,
        "logging_first_step": True,
        # The filter would report a NaN loss as 0.
        "logging_nan_inf_filter": False,
        "save_strategy": "no" if section.save_steps is None else "steps",
        "save_steps": section.save_steps or 500,
        "save_total_limit": section.keep_last,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "train_sampling_strategy": GROUPED if section.group_by_length else "random",
        "report_to": "none",
        "disable_tqdm": True,
        **trainer_precision(recipe.model),
        # Rows were checked, counted and cut before: the trainers must drop none silently.
        "max_length": None,
    }


class WholeEvaluation(Trainer):  # type: ignore[misc]
    """Evaluates all held-out rows in every process, in the batches of a single process.

    If rows were distributed, the last batches would be padded with rows from the beginning, and
    metrics would depend on the number of processes. The mean of identical metrics is exact.
    """

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return a loader over all rows."""
        loader: DataLoader[Any] = super().get_eval_dataloader(eval_dataset)
        if self.args.world_size == 1:
            return loader
        return DataLoader(
            loader.dataset, batch_size=self.args.eval_batch_size, collate_fn=loader.collate_fn
        )


class ShardedTraining(Trainer):  # type: ignore[misc]
    """Trains adapters on the base if `make_ready` has sharded it."""

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        wrapped = super()._wrap_model(model, training, dataloader)
        if not training or wrapped is not self.model or not is_sharded(model):
            return wrapped
        # The trainer does not prepare a model that is wrapped here, so set its mixed precision too.
        self.accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)
        return average_gradients(model, self.accelerator.ddp_handler.to_kwargs())


class StageTraining(
    InterruptibleEvaluation,
    WholeEvaluation,
    ShardedTraining,
    SpaceForCheckpoints,
    FiniteTraining,
    SplitBatches,
    ResumedSettings,
    LengthGroups,
):
    """Checks that the trainers of every stage add to those of transformers."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: the stage writes its own, and TRL's lists its tags in no order."""


def make_ready(
    trainer: Any,
    stage: str,
    monitor: Monitor,
    section: TrainingSection,
    *,
    shard: bool,
    auto_batch: bool = False,
) -> LossCallback:
    """Report to the monitor instead of stdout, and restore trainable weights to fp32.

    Args:
        trainer: TRL trainer.
        stage: sft, rm or dpo.
        monitor: Receives every logged step.
        section: How often to save checkpoints.
        shard: Shard the base over the processes; the model must have adapters.
        auto_batch: Halve the rows per forward pass where memory runs out.

    Returns:
        The callback that knows of the training before an interruption.

    Raises:
        EnvironmentFault: The recipe asks for gradient checkpointing; the model has none.
        DiskFullError: The disk has no room for the checkpoints.
        UsageError: `auto_batch` with several processes.
    """
    if trainer.args.gradient_checkpointing:
        require_gradient_checkpointing(trainer.model)
    trainer.stage_name = stage
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(MonitorCallback(stage, monitor))
    losses = LossCallback(trainer)
    trainer.add_callback(losses)
    trainer.add_callback(SealCallback())
    if section.eval_steps is not None:
        trainer.add_callback(HeldOutEvaluations(trainer, section))
    trainer.add_callback(StopCallback(Processes(), section.save_minutes, monitor))
    if auto_batch:
        require_single_process(Processes())
        size = section.per_device_train_batch_size
        trainer.pass_size = PassSize(size, automatic=True, say=monitor.note)
        trainer.add_callback(LongestBatchFirst(trainer))
    restore_float32(trainer.model)
    use_fast_cpu_layers(trainer.model)
    require_space_for_training(trainer, stage)
    if shard:
        # Only after the trainer has moved the model, which it cannot do with sharded weights.
        shard_base(trainer.model.get_base_model())
    return losses


def evaluate_untrained(trainer: Any) -> dict[str, float]:
    """Evaluate before training, and restore the trainer's state.

    transformers 5.23 lets accelerate prepare a model for evaluation, which marks it permanently as
    prepared. Training would then skip DistributedDataParallel, and every process would silently
    train on its own share only.
    """
    metrics: dict[str, float] = trainer.evaluate()
    if trainer.args.world_size > 1:
        model = trainer.model
        trainer.accelerator._models.clear()
        del model._is_accelerate_prepared
        if hasattr(model, "_original_forward"):
            model.forward = model._original_forward
    return metrics


def newest_checkpoint(output: Path, monitor: Monitor) -> str | None:
    """Return the newest valid checkpoint in a stage's folder to resume from, or None.

    Raises:
        UnsafeError: Its state would run code.
    """
    newest = newest_valid(output / CHECKPOINTS, monitor)
    if newest is not None:
        require_plain_state(newest)
    return None if newest is None else str(newest)
