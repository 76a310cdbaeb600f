"""Settings of generation, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of generation.

    Attributes:
        max_new_tokens: Longest response, in tokens.
        temperature: Divisor of the logits; 0: the most probable token at each step.
        seed: Seed of the random numbers, which are the same for every stage.
    """

    max_new_tokens: int
    temperature: float
    seed: int


@dataclass(frozen=True)
class Response:
    """One response.

    Attributes:
        text: Text without special tokens.
        tokens: Length in tokens, the stop token included.
        ended: Whether it ends with a stop token rather than at the length limit.
    """

    text: str
    tokens: int
    ended: bool
