"""Scores of the evaluation per prompt: `eval/scores.json`, for paired comparisons of two runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ResponseScores:
    """Measurements of one policy's responses, [prompts] each; None where unavailable.

    Attributes:
        kl: k1 estimate of the KL to the reference, nats per response.
        proxy: Score by the recipe's reward sources.
        gold: Gold reward.
        held_out_rm: Score by the held-out reward model.
        lengths: Tokens.
    """

    kl: list[float]
    proxy: list[float] | None = None
    gold: list[float] | None = None
    held_out_rm: list[float] | None = None
    lengths: list[float] | None = None


@dataclass(frozen=True)
class PromptScores:
    """Scores per policy on the same prompts.

    Attributes:
        prompts: SHA-256 of the prompts; only scores of equal prompts can be paired.
        policies: Measurements per policy, `sft` and `ppo`.
    """

    prompts: str
    policies: dict[str, ResponseScores]
