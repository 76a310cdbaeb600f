"""The program that samples rollouts: transformers through the roles, or another behind `Engine`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from rlhfctl.errors import DivergedError
from rlhfctl.maths.masking import masked_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from rlhfctl.maths.sampling import Seed
    from rlhfctl.maths.sequences import Sequences
    from rlhfctl.ppo.pass_size import PassSize
    from rlhfctl.ppo.settings import Roles


@dataclass(frozen=True)
class Responses:
    """Sampled responses.

    Attributes:
        ids: Token ids per response, including the stop token, if any.
        log_probs: The engine's log-probability of each of these tokens; None if it is transformers,
            whose log-probabilities are computed by the training pass anyway.
    """

    ids: list[list[int]]
    log_probs: list[list[float]] | None = None


@dataclass(frozen=True)
class Sampled:
    """A process's share of a rollout.

    Attributes:
        sequences: Prompts and responses.
        engine_log_probs: [batch, time], 0 where masked; None as in `Responses`.
    """

    sequences: Sequences
    engine_log_probs: Tensor | None = None


class Engine(Protocol):
    """Samples responses from the present policy."""

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Seed],
        progress: Callable[[int], None],
    ) -> Responses:
        """Return one response per prompt, each sampled from its own seed.

        Args:
            prompts: Token ids per prompt.
            seeds: One per prompt.
            progress: Told how many responses are done.
        """


class TransformersEngine:
    """Sampling by the roles themselves, which publish their own progress."""

    def __init__(self, roles: Roles, size: PassSize) -> None:
        """Store the roles and the number of episodes sampled at once."""
        self.roles = roles
        self.size = size

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Seed],
        progress: Callable[[int], None],
    ) -> Responses:
        """Return one response per prompt, each sampled from its own seed."""

        def generate(size: int) -> list[list[int]]:
            starts = range(0, len(prompts), size)
            parts = [
                self.roles.generate(prompts[i : i + size], seeds[i : i + size]) for i in starts
            ]
            return [response for part in parts for response in part]

        return Responses(self.size.run(generate))


def padded(rows: Sequence[Sequence[float]], like: Sequences) -> Tensor:
    """Return one number per response token as [batch, time], 0 where masked."""
    result = torch.zeros(like.mask.shape)
    for index, row in enumerate(rows):
        result[index, : len(row)] = torch.tensor(row)
    return result.to(like.ids.device)


def mismatch(log_probs: Tensor, engine_log_probs: Tensor, mask: Tensor) -> tuple[float, float]:
    """Return mean and maximum over tokens of |log pi_engine - log pi|, in nats.

    Args:
        log_probs: [batch, time], by the training pass.
        engine_log_probs: [batch, time].
        mask: [batch, time].
    """
    difference = (engine_log_probs - log_probs).abs() * mask
    return float(masked_mean(difference, mask)), float(difference.max())


def require_agreement(
    log_probs: Tensor, engine_log_probs: Tensor, mask: Tensor, bound: float | None
) -> None:
    """Refuse a rollout whose engine computes other probabilities than the policy.

    Args:
        log_probs: [batch, time], by the training pass.
        engine_log_probs: [batch, time].
        mask: [batch, time].
        bound: Largest mean difference, in nats per token; None: no bound.

    Raises:
        DivergedError: The mean difference is above the bound, or NaN.
    """
    mean, largest = mismatch(log_probs, engine_log_probs, mask)
    # NaN is no agreement either.
    if bound is not None and not mean <= bound:
        raise DivergedError(
            f"the engine's log-probabilities differ from the policy's by {mean:.3g} nats per token "
            f"on average (at most {largest:.3g}), above ppo.vllm.max_mismatch ({bound:g})",
            hint="It must hold the same base in the same precision, with adapters enabled, and run "
            "with --logprobs-mode processed_logprobs; raise the bound only if that is so.",
        )
