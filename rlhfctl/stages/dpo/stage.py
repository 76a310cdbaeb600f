"""Direct preference optimisation of the SFT policy on comparisons, by TRL's DPOTrainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.data.formatting import encode_comparisons
from rlhfctl.data.row_counts import bad_limit
from rlhfctl.data.sources import load_comparisons
from rlhfctl.data.split import set_apart
from rlhfctl.evaluation.preferences import accuracy
from rlhfctl.models import sharding
from rlhfctl.ppo.processes import Processes
from rlhfctl.results.io import to_json
from rlhfctl.results.training import DPOResult
from rlhfctl.run import stop
from rlhfctl.run.directory import HELD_OUT_RM_FOLDER
from rlhfctl.run.disk import space_for
from rlhfctl.run.manifest import StageOutcome
from rlhfctl.stages.dpo.implicit_rewards import implicit_rewards
from rlhfctl.stages.dpo.training import new_trainer, start_at_sft
from rlhfctl.stages.shared.disk_space import weight_bytes
from rlhfctl.stages.shared.finite import require_finite, require_finite_weights
from rlhfctl.stages.shared.hf_training import make_ready, newest_checkpoint
from rlhfctl.stages.shared.model_card import write_model_card
from rlhfctl.stages.shared.stage_context import open_stage_context, report_rows, save_trained

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from datasets import Dataset

    from rlhfctl.data.formatting import Encoded
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor
    from rlhfctl.stages.shared.stage_context import StageContext


def run(recipe: Recipe, inputs: Mapping[str, Path], output: Path, monitor: Monitor) -> StageOutcome:
    """Train the SFT policy on comparisons, with SFT as the frozen reference, and write it.

    1. Encode the comparisons that the reward model would be trained on. 2. Train. 3. Measure loss
    and implicit rewards on held-out comparisons. 4. Save.

    Args:
        recipe: Recipe; `model`, `lora`, `data.comparisons` and `dpo` are read.
        inputs: `sft`, the SFT checkpoint.
        output: Empty folder, or that of an interrupted attempt.
        monitor: Receives every logged step.

    Raises:
        RecipeError: The base cannot be sharded over the processes as requested.
        UsageError: The launcher asks for FSDP version 1.
        DataError: No usable comparisons.
        CheckpointError: The SFT checkpoint is damaged, or has another base or rank.
        DivergedError: The loss is not finite.
        DiskFullError: A checkpoint or the result does not fit on the disk.
    """
    shard = sharding.is_requested(recipe)
    processes = Processes()

    # 1.
    context = open_stage_context(recipe, monitor)
    rows = load_comparisons(recipe, monitor)
    train = _encoded(context, _without_held_out_rm(recipe, rows.train), monitor)
    held_out = _encoded(context, rows.held_out, monitor)
    counts = report_rows(monitor, "comparisons", rows.report, (train.report, held_out.report))

    # 2.
    trainer = new_trainer(context, inputs["sft"], train.dataset, held_out.dataset, output)
    losses = make_ready(
        trainer, "dpo", monitor, recipe.dpo, shard=shard, auto_batch=recipe.auto_batch
    )
    start_at_sft(trainer, inputs["sft"])
    with stop.deferred(monitor.note):
        result = trainer.train(resume_from_checkpoint=newest_checkpoint(output, monitor))
        require_finite_weights(trainer, "dpo")

        # 3.
        after = trainer.evaluate()
        rewards = implicit_rewards(trainer)
    require_finite(trainer, "dpo", {"held-out loss": after["eval_loss"]}, "after training")
    if not processes.is_main:
        return StageOutcome({})
    metrics = DPOResult(
        accuracy=accuracy(rewards.chosen.numpy(), rewards.rejected.numpy()),
        mean_margin=float((rewards.chosen - rewards.rejected).mean()),
        chosen_reward=float(rewards.chosen.mean()),
        eval_loss=after["eval_loss"],
        pairs=len(held_out.dataset),
        train_loss=result.training_loss,
        train_rows=len(train.dataset),
        steps=result.global_step,
        best_step=trainer.state.best_global_step,
        pass_size=trainer.pass_size.rows if trainer.pass_size is not None else None,
    )

    # 4.
    with space_for(output, weight_bytes(trainer.model), "the result of dpo"):
        save_trained(context, trainer.model, output, "dpo", "CAUSAL_LM")
        write_model_card(output, "dpo", context, "CAUSAL_LM", metrics)
    losses.discard_clock()
    return StageOutcome(to_json(metrics), {"comparisons": counts.record()})


def _without_held_out_rm(recipe: Recipe, rows: Dataset) -> Dataset:
    """Return the comparisons without those of the held-out reward model, which may judge the policy."""
    share = recipe.reward_model.judge_share
    if share == 0.0:
        return rows
    remaining, _ = set_apart(rows, share, recipe.data.comparisons.title, HELD_OUT_RM_FOLDER)
    return remaining


def _encoded(context: StageContext, rows: Dataset, monitor: Monitor) -> Encoded:
    recipe = context.recipe
    return encode_comparisons(
        rows,
        context.formatter_for("comparisons"),
        recipe.dpo.max_length,
        bad_limit(recipe.data),
        monitor,
    )
