"""Training of the Bradley-Terry reward model, and of a held-out one that PPO never uses."""

from __future__ import annotations

import gc
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlhfctl.data.formatting import encode_comparisons
from rlhfctl.data.row_counts import bad_limit
from rlhfctl.data.sources import load_comparisons
from rlhfctl.data.split import set_apart
from rlhfctl.errors import DivergedError
from rlhfctl.models import sharding
from rlhfctl.ppo.processes import Processes
from rlhfctl.results.io import read_result, to_json
from rlhfctl.results.training import RewardModelResult, RewardProbe
from rlhfctl.run.directory import HELD_OUT_RM_FOLDER, METRICS_FILE, PROBE_FILE
from rlhfctl.run.disk import space_for
from rlhfctl.run.files import CHECKPOINTS, write_json
from rlhfctl.run.manifest import StageOutcome
from rlhfctl.stages.reward_model.held_out_metrics import evaluate_reward_model
from rlhfctl.stages.reward_model.labels import aggregated
from rlhfctl.stages.reward_model.scoring import score_ids
from rlhfctl.stages.reward_model.training import train
from rlhfctl.stages.shared.disk_space import weight_bytes
from rlhfctl.stages.shared.held_out_rm import SEED_OFFSET, HeldOutRMMonitor
from rlhfctl.stages.shared.hf_checkpoints import discard_unsound
from rlhfctl.stages.shared.model_card import write_model_card
from rlhfctl.stages.shared.score_normalization import normalize_scores
from rlhfctl.stages.shared.stage_context import (
    StageContext,
    add_encoded,
    open_stage_context,
    report_rows,
    save_trained,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from datasets import Dataset

    from rlhfctl.data.formatting import Encoded
    from rlhfctl.data.row_counts import RowCounts
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor

PROBES = 16


@dataclass(frozen=True)
class _Part:
    """One reward model to train.

    Attributes:
        folder: Folder of the result.
        staging_folder: Folder of the trainer's `checkpoints`, which are not part of the result.
        rows: Comparisons to train on.
        seed: Training seed.
    """

    folder: Path
    staging_folder: Path
    rows: Dataset
    seed: int


def run(recipe: Recipe, inputs: Mapping[str, Path], output: Path, monitor: Monitor) -> StageOutcome:
    """Train a reward model from the SFT checkpoint, evaluate it, and normalise its scores.

    1. Train in all processes; the rest runs in process 0. 2. Evaluate on held-out comparisons.
    3. Save. 4. Repeat for the held-out reward model if `judge_share` is above 0. 5. Sample the SFT
    policy and save the mean and deviation of its responses' scores.

    Args:
        recipe: Recipe; `model`, `lora`, `data.comparisons`, `data.prompts` and `reward_model` are
            read.
        inputs: `sft`, the SFT checkpoint.
        output: Empty folder, or that of an interrupted attempt.
        monitor: Receives every logged step.

    Raises:
        RecipeError: The base cannot be sharded over the processes as requested.
        UsageError: The launcher asks for FSDP version 1.
        DataError: No usable comparisons.
        CheckpointError: The SFT checkpoint is damaged, or has another base or rank.
        DivergedError: The loss is not finite, or all scores are equal.
    """
    sharding.is_requested(recipe)  # refuses before anything loads
    processes = Processes()
    context = open_stage_context(recipe, monitor)
    rows = load_comparisons(recipe, monitor, margins=recipe.reward_model.use_margin)
    held_out = _encoded(context, rows.held_out, monitor)
    counts = report_rows(monitor, "comparisons", rows.report, (held_out.report,))
    results: list[RewardModelResult] = []
    parts = _parts(recipe, rows.train, output)
    for part in parts:
        # 1. to 4.
        part_monitor = HeldOutRMMonitor(monitor, results[0].steps) if results else monitor
        result = _make(context, inputs["sft"], part, held_out, part_monitor, processes, counts)
        results += [result] if result is not None else []
        # Free this base: the next model, or the roles, load their own.
        gc.collect()
        # Process 0 has evaluated alone; the others would wait within a collective, deaf to signals.
        processes.wait()
    if not processes.is_main:
        return StageOutcome({})

    # 5.
    folders = [part.folder for part in parts]
    calibration = normalize_scores(context, inputs["sft"], folders, monitor)
    results = [
        replace(
            result,
            score_mean=scale.mean,
            score_std=scale.deviation,
            sft_eos_share=calibration.eos_share,
        )
        for result, scale in zip(results, calibration.normalizations, strict=True)
    ]
    for part, result in zip(parts, results, strict=True):
        write_json(part.folder / METRICS_FILE, to_json(result))
        write_model_card(part.folder, "rm", context, "SEQ_CLS", result)
    main, *held_out_rm = results
    metrics = to_json(replace(main, judge=held_out_rm[0] if held_out_rm else None))
    return StageOutcome(metrics, {"comparisons": counts.record()})


def _parts(recipe: Recipe, rows: Dataset, output: Path) -> list[_Part]:
    """Return the main model, then the held-out one if requested; they share no prompt."""
    share = recipe.reward_model.judge_share
    if share == 0.0:
        return [_Part(output, output, rows, recipe.seed)]
    source = recipe.data.comparisons.title
    main, held_out = set_apart(rows, share, source, HELD_OUT_RM_FOLDER)
    return [
        _Part(output, output, main, recipe.seed),
        _Part(
            output / HELD_OUT_RM_FOLDER,
            output / CHECKPOINTS / HELD_OUT_RM_FOLDER,
            held_out,
            recipe.seed + SEED_OFFSET,
        ),
    ]


def _make(
    context: StageContext,
    sft: Path,
    part: _Part,
    held_out: Encoded,
    monitor: Monitor,
    processes: Processes,
    counts: RowCounts,
) -> RewardModelResult | None:
    """Train, evaluate and save one model, unless an interrupted attempt has finished it.

    Training rows that are too long are added to `counts`.

    Returns:
        Its result; None in processes other than 0, which train only.

    Raises:
        DivergedError: A loss, a gradient, a weight or a score is not finite.
        DiskFullError: A checkpoint or the result does not fit on the disk.
    """
    finished = part.folder / METRICS_FILE
    if finished.is_file():
        return read_result(RewardModelResult, finished)
    section = context.recipe.reward_model
    rows = aggregated(part.rows, section, lambda said: monitor.warn(f"comparisons: {said}"))
    train_rows = _encoded(context, rows, monitor)
    add_encoded(monitor, "comparisons", counts, train_rows.report)
    evaluated = held_out if section.eval_steps is not None else None
    trained = train(context, sft, train_rows, part.seed, part.staging_folder, monitor, evaluated)
    if not processes.is_main:
        return None
    part.folder.mkdir(exist_ok=True)
    try:
        result = evaluate_reward_model(context, trained, held_out)
    except DivergedError:
        discard_unsound(part.staging_folder / CHECKPOINTS, trained.steps)
        raise
    with space_for(part.folder, weight_bytes(trained.model), "the result of rm"):
        _save(context, trained.model, held_out, part.folder)
        write_json(finished, to_json(result))
    return result


def _encoded(context: StageContext, rows: Dataset, monitor: Monitor) -> Encoded:
    recipe = context.recipe
    return encode_comparisons(
        rows,
        context.formatter_for("comparisons"),
        recipe.reward_model.max_length,
        bad_limit(recipe.data),
        monitor,
    )


def _save(context: StageContext, model: Any, held_out: Encoded, output: Path) -> None:
    probes = [list(ids) for ids in held_out.dataset["chosen_ids"][:PROBES]]
    size = context.recipe.reward_model.per_device_eval_batch_size
    scores = score_ids(model, probes, context.tokenizer.pad_token_id, size)
    save_trained(context, model, output, "rm", "SEQ_CLS")
    text = json.dumps(to_json(RewardProbe(probes, scores)))
    (output / PROBE_FILE).write_text(f"{text}\n", encoding="utf-8")
