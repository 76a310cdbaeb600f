"""The `generation` section: the lengths, temperature and end of sampled responses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhfctl.recipe.base import Count, Positive, Section

CACHE_KEY = "generation.cache_implementation"


class GenerationSection(Section):
    """Sampling of responses, shared by every stage that generates or scores them."""

    max_prompt_length: Count = Field(
        512, description="Longest prompt, in tokens; longer ones are left out and counted."
    )
    max_new_tokens: Count = Field(
        128, description="Longest response, in tokens; one that reaches it has not ended."
    )
    temperature: Positive = Field(
        1.0,
        description="Divisor of the logits before sampling; log-probabilities are of the "
        "distribution sampled from.",
    )
    batch_size: Count | None = Field(
        None,
        description="Responses sampled at once in PPO's rollouts and for score normalization; null: "
        "a whole rollout. Each has random numbers of its own, so this is for memory and speed alone.",
    )
    cache_implementation: Literal["dynamic", "static"] = Field(
        "dynamic",
        description="Key-value cache of the stages' sampling. dynamic grows, and rows that have ended "
        "leave the batch. static has a fixed size and a pass compiled by torch (CUDA graphs on GPUs): "
        "some seconds to minutes at first, then faster where responses have similar lengths.",
    )
    stop_tokens: list[str] = Field(
        default_factory=list,
        description="Tokens of the vocabulary that end a response, besides EOS.",
    )
