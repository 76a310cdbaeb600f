"""Score normalization of reward models: mean 0, deviation 1 over responses of the SFT policy.

Responses that ended are used, since PPO replaces the scores of the others: sampling continues until
`reward_model.calibration_samples` have ended, over at most four times as many responses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.data.formatting import encode_prompts
from rlhfctl.data.sources import load_prompts
from rlhfctl.errors import DivergedError
from rlhfctl.maths.sequences import Sequences
from rlhfctl.models.heads import ScoreNormalization
from rlhfctl.models.roles import load_roles
from rlhfctl.stages.shared.calibration import (
    REMEDY,
    SAME_SCORE,
    ended_of,
    responses_needed,
    responses_used,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rlhfctl.models.roles import Roles
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor
    from rlhfctl.stages.shared.stage_context import StageContext


@dataclass
class CalibrationSample:
    """Scored responses of the SFT policy.

    Attributes:
        scores: [models][responses] raw scores.
        ended: [responses] whether the response ended with a stop token.
    """

    scores: list[list[float]]
    ended: list[bool] = field(default_factory=list)

    @property
    def eos_share(self) -> float:
        """Share of the responses that ended with a stop token."""
        return float(np.mean(self.ended))


@dataclass(frozen=True)
class Calibration:
    """Result of the calibration.

    Attributes:
        normalizations: One per reward model.
        eos_share: Share of the sampled SFT responses that ended with a stop token.
    """

    normalizations: list[ScoreNormalization]
    eos_share: float


def normalize_scores(
    context: StageContext, sft: Path, rms: Sequence[Path], monitor: Monitor
) -> Calibration:
    """Normalise reward models by the mean and deviation of raw scores over one set of samples.

    Args:
        context: Tokenizer and recipe.
        sft: SFT checkpoint; it generates the responses.
        rms: Reward model checkpoints; each normalization is written to its folder.
        monitor: Receives a warning if too few responses ended.

    Raises:
        DivergedError: A model gives all responses the same score.
    """
    recipe = context.recipe
    for rm in rms:
        ScoreNormalization(0.0, 1.0, 0).save(rm)
    roles = load_roles(recipe, context.tokenizer, context.stop_token_ids, sft, rms)
    prompts = encode_prompts(
        load_prompts(recipe, monitor).train,
        context.formatter_for("prompts"),
        recipe.generation.max_prompt_length,
        progress=monitor,
    ).dataset["input_ids"]
    sample = _sample(recipe, roles, prompts, len(rms))
    used, warning = responses_used(sample.ended, recipe)
    if warning is not None:
        monitor.warn(warning)
    normalizations = [
        _normalization(np.asarray(scores)[used], sample, recipe) for scores in sample.scores
    ]
    for rm, normalization in zip(rms, normalizations, strict=True):
        normalization.save(rm)
    return Calibration(normalizations, sample.eos_share)


def _sample(
    recipe: Recipe, roles: Roles, prompts: Sequence[Sequence[int]], models: int
) -> CalibrationSample:
    """Sample and score responses until enough have ended or the most have been sampled."""
    requested, size = recipe.reward_model.calibration_samples, recipe.sampled_at_once
    sample = CalibrationSample([[] for _ in range(models)])
    while (needed := responses_needed(sample.ended, requested)) > 0:
        start = len(sample.ended)
        rows = range(start, start + min(size, needed))
        batch = [prompts[row % len(prompts)] for row in rows]
        responses = roles.generate(batch, [(recipe.seed, row) for row in rows], "reference")
        sequences = Sequences.from_lists(batch, responses, roles.pad_token_id, roles.device)
        # In the order of the chunks, not of the batch.
        for chunk, part in sequences.in_chunks(recipe.ppo.forward_batch_size):
            for number in range(models):
                sample.scores[number] += roles.raw_scores(part, number).tolist()
            sample.ended += [roles.ended(responses[row]) for row in chunk.tolist()]
    return sample


def _normalization(
    scores: NDArray[np.float64], sample: CalibrationSample, recipe: Recipe
) -> ScoreNormalization:
    deviation = float(np.std(scores))
    if not np.isfinite(deviation) or deviation < SAME_SCORE:
        seldom = f": {ended_of(sample.ended, recipe)}" if sample.eos_share < 0.5 else ""
        raise DivergedError(
            f"the reward model gives all {len(scores):,} SFT responses the same score "
            f"(deviation {deviation:.2g}){seldom}",
            "reward_model",
            f"{REMEDY}."
            if seldom
            else "Check the comparisons, or raise reward_model.learning_rate.",
        )
    return ScoreNormalization(float(np.mean(scores)), deviation, len(scores))
