"""The Bradley-Terry reward model on comparisons, by TRL's RewardTrainer."""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from peft import get_peft_model
from transformers import set_seed
from trl import RewardConfig, RewardTrainer

from rlhfctl.data.formatting import encode_comparisons, encode_prompts
from rlhfctl.data.sources import load_comparisons, load_prompts
from rlhfctl.errors import DataError, DivergedError
from rlhfctl.evaluation.preferences import accuracy, accuracy_by_group, longer_wins
from rlhfctl.maths.sequences import Sequences
from rlhfctl.models import adapters
from rlhfctl.models.base import load_scorer
from rlhfctl.models.heads import ScoreNormalization, initialise_score_head
from rlhfctl.models.provenance import check_fits
from rlhfctl.models.roles import load_roles
from rlhfctl.ppo.processes import Processes
from rlhfctl.run.manifest import StageOutcome
from rlhfctl.stages.card import write_card
from rlhfctl.stages.gate import FIGURES_FILE, PROBE_FILE
from rlhfctl.stages.hf_training import make_ready, newest_checkpoint, training_arguments
from rlhfctl.stages.scoring import score_ids
from rlhfctl.stages.session import Session, open_session, save_trained, tell_rows
from rlhfctl.stages.truth import held_out_gold_comparisons

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rlhfctl.data.formatting import Encoded
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor

PROBES = 16


def run(recipe: Recipe, inputs: Mapping[str, Path], output: Path, monitor: Monitor) -> StageOutcome:
    """Train a reward model from the SFT checkpoint, judge it, and put its scores on a scale.

    1. Train, in all processes; the rest is process 0's. 2. Judge on held-out comparisons. 3. Save.
    4. Sample the SFT policy and keep mean and deviation of the scores of its responses.

    Args:
        recipe: `model`, `lora`, `data.comparisons`, `data.prompts` and `reward_model` are read.
        inputs: `sft`, the SFT checkpoint.
        output: An empty folder.
        monitor: Hears of every logged step.

    Raises:
        DataError: No usable comparisons.
        CheckpointError: The SFT checkpoint is damaged, or of another base or rank.
        DivergedError: The loss is not finite, or all scores are equal.
    """
    processes = Processes()
    session = open_session(recipe)
    section = recipe.reward_model
    rows = load_comparisons(recipe)
    train = encode_comparisons(
        rows.train, session.formatter, section.max_length, recipe.data.bad_rows
    )
    held_out = encode_comparisons(
        rows.held_out, session.formatter, section.max_length, recipe.data.bad_rows
    )
    tell_rows(monitor, "comparisons", (rows.report, train.report, held_out.report))

    set_seed(recipe.seed)
    model = _model(session, inputs["sft"])
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            **training_arguments(section, recipe, output),
            center_rewards_coefficient=section.center_rewards_coefficient,
        ),
        train_dataset=_columns(train, use_margin=section.use_margin),
        processing_class=session.tokenizer,
    )
    make_ready(trainer, "rm", monitor)
    result = trainer.train(resume_from_checkpoint=newest_checkpoint(output))
    if not processes.is_main:
        return StageOutcome({})

    metrics: dict[str, Any] = _judge(session, trainer.model, held_out)
    metrics |= {
        "train_loss": result.training_loss,
        "train_rows": len(train.dataset),
        "steps": result.global_step,
    }
    _save(session, trainer.model, held_out, output)
    # One base at a time: the roles below load their own.
    del trainer, model
    gc.collect()

    normalization = _calibrate(session, inputs["sft"], output)
    normalization.save(output)
    metrics |= {"score_mean": normalization.mean, "score_std": normalization.deviation}
    (output / FIGURES_FILE).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    write_card(output, "rm", recipe, "SEQ_CLS", metrics)
    return StageOutcome(metrics)


def _model(session: Session, sft: Path) -> Any:
    """Return the base with a fresh score head and the SFT adapter's weights under it."""
    recipe, pad = session.recipe, session.tokenizer.pad_token_id
    if recipe.lora is None:
        model = load_scorer(recipe.model, pad, str(sft))
        initialise_score_head(model.score, recipe.seed)
        return model
    adapters.check_rank(sft, recipe.lora)
    weights = adapters.read_weights(sft)
    base = load_scorer(recipe.model, pad)
    check_fits(sft, session.provenance("rm", base))
    initialise_score_head(base.score, recipe.seed)
    score = base.score.weight.detach().clone()
    model = get_peft_model(base, adapters.new_config(recipe.lora, "SEQ_CLS"))
    adapters.set_weights(model, weights | {adapters.SCORE_WEIGHT: score}, "default", sft)
    return model


def _columns(encoded: Encoded, *, use_margin: bool) -> Any:
    names = ["chosen_ids", "rejected_ids"]
    if use_margin:
        if "margin" not in encoded.dataset.column_names:
            raise DataError(
                "reward_model.use_margin is set, but the comparisons have no margin column",
                "data.comparisons",
                "Map it in data.comparisons.columns, or leave use_margin out.",
            )
        names.append("margin")
    return encoded.dataset.select_columns(names)


def _scores(session: Session, model: Any, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    size = session.recipe.reward_model.per_device_eval_batch_size
    pad = session.tokenizer.pad_token_id
    chosen = score_ids(model, rows["chosen_ids"], pad, size)
    rejected = score_ids(model, rows["rejected_ids"], pad, size)
    return np.array(chosen), np.array(rejected)


def _lengths(rows: Any) -> tuple[list[int], list[int]]:
    return list(map(len, rows["chosen_ids"])), list(map(len, rows["rejected_ids"]))


def _judge(session: Session, model: Any, held_out: Encoded) -> dict[str, Any]:
    """Return accuracies on held-out comparisons, and on gold-ordered ones in the embedded world."""
    rows = held_out.dataset
    chosen, rejected = _scores(session, model, rows)
    metrics: dict[str, Any] = accuracy(chosen, rejected).figures("accuracy")
    metrics |= longer_wins(*_lengths(rows)).figures("length_accuracy")
    metrics["pairs"] = len(rows)
    metrics["mean_margin"] = float((chosen - rejected).mean())
    both = np.concatenate([chosen, rejected])
    metrics |= {"score_min": float(both.min()), "score_max": float(both.max())}
    if "annotator" in rows.column_names:
        groups = accuracy_by_group(chosen, rejected, rows["annotator"])
        metrics["per_annotator"] = {name: group.figures() for name, group in groups.items()}
    gold = held_out_gold_comparisons(session.recipe)
    if gold is not None:
        length = session.recipe.reward_model.max_length
        encoded = encode_comparisons(gold, session.formatter, length).dataset
        metrics |= accuracy(*_scores(session, model, encoded)).figures("gold_accuracy")
        metrics |= longer_wins(*_lengths(encoded)).figures("gold_length_accuracy")
        metrics["gold_pairs"] = len(encoded)
    return metrics


def _save(session: Session, model: Any, held_out: Encoded, output: Path) -> None:
    probes = [list(ids) for ids in held_out.dataset["chosen_ids"][:PROBES]]
    size = session.recipe.reward_model.per_device_eval_batch_size
    scores = score_ids(model, probes, session.tokenizer.pad_token_id, size)
    save_trained(session, model, output, "rm", "SEQ_CLS")
    (output / PROBE_FILE).write_text(
        json.dumps({"ids": probes, "scores": scores}) + "\n", encoding="utf-8"
    )


def _calibrate(session: Session, sft: Path, output: Path) -> ScoreNormalization:
    """Return mean and deviation of raw scores over the SFT policy's own responses.

    Responses that did not end are left out: PPO replaces their scores.
    """
    recipe = session.recipe
    ScoreNormalization(0.0, 1.0, 0).save(output)
    roles = load_roles(recipe, session.tokenizer, session.stop_token_ids, sft, [output])
    prompts = encode_prompts(
        load_prompts(recipe).train, session.formatter, recipe.ppo.max_prompt_length
    ).dataset["input_ids"]
    wanted, size = recipe.reward_model.calibration_samples, recipe.ppo.rollout_batch_size
    scores: list[float] = []
    for start in range(0, wanted, size):
        batch = [prompts[at % len(prompts)] for at in range(start, min(start + size, wanted))]
        seeds = [(recipe.seed, start + at) for at in range(len(batch))]
        responses = roles.generate(batch, seeds, "reference")
        ended = [roles.ended(response) for response in responses]
        kept = [at for at, done in enumerate(ended) if done] or list(range(len(batch)))
        sequences = Sequences.from_lists(
            [batch[at] for at in kept],
            [responses[at] for at in kept],
            roles.pad_token_id,
            roles.device,
        )
        for _, part in sequences.in_chunks(recipe.ppo.forward_batch_size):
            scores += roles.raw_scores(part).tolist()
    deviation = float(np.std(scores))
    if not np.isfinite(deviation) or deviation < 1e-6:
        raise DivergedError(
            f"the reward model gives all SFT responses the same score (deviation {deviation:.2g})",
            "reward_model",
            "Check the comparisons, or raise reward_model.learning_rate.",
        )
    return ScoreNormalization(float(np.mean(scores)), deviation, len(scores))
