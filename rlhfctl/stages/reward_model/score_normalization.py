"""Score normalization of reward models: mean 0, deviation 1 over responses of the SFT policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.data.formatting import encode_prompts
from rlhfctl.data.sources import load_prompts
from rlhfctl.errors import DivergedError
from rlhfctl.maths.sequences import Sequences
from rlhfctl.models.heads import ScoreNormalization
from rlhfctl.models.roles import load_roles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlhfctl.stages.shared.stage_context import StageContext


def normalize_scores(
    context: StageContext, sft: Path, rms: Sequence[Path]
) -> list[ScoreNormalization]:
    """Normalise reward models by the mean and deviation of raw scores over one set of samples.

    Responses without a stop token are left out: PPO replaces their scores.

    Args:
        context: Tokenizer and recipe.
        sft: SFT checkpoint; it generates the responses.
        rms: Reward model checkpoints; each normalization is written to its folder.

    Returns:
        One normalization per reward model.

    Raises:
        DivergedError: A model gives all responses the same score.
    """
    recipe = context.recipe
    for rm in rms:
        ScoreNormalization(0.0, 1.0, 0).save(rm)
    roles = load_roles(recipe, context.tokenizer, context.stop_token_ids, sft, rms)
    prompts = encode_prompts(
        load_prompts(recipe).train, context.formatter, recipe.generation.max_prompt_length
    ).dataset["input_ids"]
    samples, size = recipe.reward_model.calibration_samples, recipe.ppo.rollout_batch_size
    scores: list[list[float]] = [[] for _ in rms]
    for start in range(0, samples, size):
        batch = [
            prompts[index % len(prompts)] for index in range(start, min(start + size, samples))
        ]
        seeds = [(recipe.seed, start + row) for row in range(len(batch))]
        responses = roles.generate(batch, seeds, "reference")
        ended = [roles.ended(response) for response in responses]
        rows = [row for row, done in enumerate(ended) if done] or list(range(len(batch)))
        sequences = Sequences.from_lists(
            [batch[row] for row in rows],
            [responses[row] for row in rows],
            roles.pad_token_id,
            roles.device,
        )
        for number in range(len(rms)):
            for _, part in sequences.in_chunks(recipe.ppo.forward_batch_size):
                scores[number] += roles.raw_scores(part, number).tolist()
    normalizations = [_normalization(model_scores) for model_scores in scores]
    for rm, normalization in zip(rms, normalizations, strict=True):
        normalization.save(rm)
    return normalizations


def _normalization(scores: Sequence[float]) -> ScoreNormalization:
    deviation = float(np.std(scores))
    if not np.isfinite(deviation) or deviation < 1e-6:
        raise DivergedError(
            f"the reward model gives all SFT responses the same score (deviation {deviation:.2g})",
            "reward_model",
            "Check the comparisons, or raise reward_model.learning_rate.",
        )
    return ScoreNormalization(float(np.mean(scores)), deviation, len(scores))
