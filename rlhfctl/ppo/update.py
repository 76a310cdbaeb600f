"""One optimiser step of policy and critic on a minibatch of episodes."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import torch

from rlhfctl.maths.kl import k3
from rlhfctl.maths.losses import clipped_surrogate, clipped_value_loss, importance_ratio
from rlhfctl.maths.masking import masked_sum

if TYPE_CHECKING:
    from torch import Tensor

    from rlhfctl.maths.sequences import Sequences
    from rlhfctl.ppo.rollout import Rollout
    from rlhfctl.ppo.settings import Actors, PPOSettings


class Update:
    """Holds the two optimisers and applies minibatches.

    Attributes:
        optimizers: AdamW of policy and of critic, each with its own rate and gradient clip.
    """

    def __init__(self, actors: Actors, settings: PPOSettings) -> None:
        self.actors = actors
        self.settings = settings
        self.weights = {
            "policy": list(actors.trainable("policy").values()),
            "critic": list(actors.trainable("critic").values()),
        }
        self.rates = {"policy": settings.learning_rate, "critic": settings.value_learning_rate}
        self.optimizers = {
            name: torch.optim.AdamW(
                weights,
                lr=self.rates[name],
                betas=(settings.adam_beta1, settings.adam_beta2),
                eps=settings.adam_epsilon,
                weight_decay=settings.weight_decay,
            )
            for name, weights in self.weights.items()
        }

    def set_rates(self, factor: float) -> None:
        """Scale both learning rates for the coming rollout."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[name] * factor

    def accumulate(self, rollout: Rollout, rows: Tensor) -> dict[str, float]:
        """Add the gradients of a minibatch, whatever the size of a forward pass.

        Every loss is a sum over tokens divided by the minibatch's tokens, so that responses weigh
        by their tokens and splitting changes nothing.

        Args:
            rollout: Under the policy that collected it.
            rows: [n], the episodes of the minibatch.

        Returns:
            Means over the minibatch's response tokens.
        """
        batch = rollout.sequences.select(rows)
        tokens = int(batch.response_lengths.sum())
        sums: defaultdict[str, float] = defaultdict(float)
        for part_rows, part in batch.in_chunks(self.settings.forward_batch_size):
            at = rows[part_rows]
            for figures in (
                self._policy_part(rollout, at, part, tokens),
                self._critic_part(rollout, at, part, tokens),
            ):
                for name, total in figures.items():
                    sums[name] += float(total)
        return {name: total / tokens for name, total in sums.items()}

    def _policy_part(
        self, rollout: Rollout, rows: Tensor, part: Sequences, tokens: int
    ) -> dict[str, Tensor]:
        mask, width = part.mask, part.response_width
        old = rollout.log_probs[rows, :width]
        new = self.actors.log_probs("policy", part, training=True).log_probs
        ratio = importance_ratio(new, old)
        surrogate = clipped_surrogate(
            ratio, rollout.advantages[rows, :width], self.settings.clip_range
        )
        loss = masked_sum(surrogate.loss, mask)
        (loss / tokens).backward()
        with torch.no_grad():
            return {
                "policy_loss": loss.detach(),
                "ratio_mean": masked_sum(ratio, mask),
                "approx_kl": masked_sum(k3(old, new), mask),
                "policy_clip_fraction": masked_sum(surrogate.clipped.float(), mask),
            }

    def _critic_part(
        self, rollout: Rollout, rows: Tensor, part: Sequences, tokens: int
    ) -> dict[str, Tensor]:
        mask, width = part.mask, part.response_width
        values = self.actors.values(part, training=True)
        clipped = clipped_value_loss(
            values,
            rollout.values[rows, :width],
            rollout.returns[rows, :width],
            self.settings.value_clip_range,
        )
        loss = masked_sum(clipped.loss, mask)
        (loss / tokens).backward()
        with torch.no_grad():
            return {
                "value_loss": loss.detach(),
                "value_clip_fraction": masked_sum(clipped.clipped.float(), mask),
            }

    def refused(self, figures: dict[str, float]) -> bool:
        """Say whether a minibatch must not be applied: not finite, or far off the old policy."""
        if not all(math.isfinite(value) for value in figures.values()):
            return True
        bound = self.settings.max_ratio
        return bound is not None and figures["ratio_mean"] > bound

    def drop(self) -> None:
        """Forget the accumulated gradients."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> dict[str, float]:
        """Clip each network's gradient, move its weights, forget the gradients.

        Returns:
            The gradient norms before clipping; nothing moves when one of them is not finite.
        """
        norms = {
            f"{name.replace('critic', 'value')}_grad_norm": float(
                torch.nn.utils.clip_grad_norm_(weights, self.settings.max_grad_norm)
            )
            for name, weights in self.weights.items()
        }
        if all(math.isfinite(norm) for norm in norms.values()):
            for optimizer in self.optimizers.values():
                optimizer.step()
        self.drop()
        return norms
