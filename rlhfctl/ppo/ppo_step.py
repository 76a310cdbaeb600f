"""One optimiser step of policy and critic on a minibatch of episodes."""

from __future__ import annotations

import math
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from rlhfctl.maths.kl import k2, k3
from rlhfctl.maths.losses import clipped_surrogate, clipped_value_loss, importance_ratio
from rlhfctl.maths.masking import masked_sum
from rlhfctl.ppo.optimizers import new_optimizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from rlhfctl.maths.sequences import Sequences
    from rlhfctl.ppo.processes import Processes
    from rlhfctl.ppo.rollout import Rollout
    from rlhfctl.ppo.settings import PPOSettings, Roles, TrainedRole

_ESTIMATORS = {"k2": k2, "k3": k3}


class PPOStep:
    """Holds the optimisers and applies minibatches.

    Attributes:
        weights: Of each trained role.
        optimizers: Of policy and of critic, each with its own rate and gradient clip.
        average: The running mean of the policy's weights, where one is kept.
    """

    def __init__(self, roles: Roles, settings: PPOSettings, processes: Processes) -> None:
        self.roles = roles
        self.settings = settings
        self.processes = processes
        self.weights = {role: list(roles.trainable(role).values()) for role in settings.trained}
        self.rates = {"policy": settings.learning_rate, "critic": settings.value_learning_rate}
        self.optimizers = {
            role: new_optimizer(weights, self.rates[role], settings)
            for role, weights in self.weights.items()
        }
        self.average: list[Tensor] | None = None
        if settings.ema_decay is not None:
            self.average = [weight.detach().clone() for weight in self.weights["policy"]]

    def set_rates(self, factor: float) -> None:
        """Scale both learning rates for the coming rollout."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[name] * factor

    def accumulate(
        self,
        rollout: Rollout,
        rows: Tensor,
        roles: Sequence[TrainedRole],
        demonstrations: Sequences | None = None,
    ) -> dict[str, float]:
        """Add the gradients of a minibatch, whatever the size of a forward pass.

        Every loss is a sum over tokens divided by the minibatch's tokens, so that responses weigh
        by their tokens and splitting, over passes or processes, changes nothing.

        Args:
            rollout: Under the policy that collected it.
            rows: [n], the episodes of the minibatch, of all processes together.
            roles: Those that learn from it.
            demonstrations: Of the minibatch's SFT loss, of all processes together.

        Returns:
            Means over the minibatch's response tokens; `ptx_loss` over the demonstrations'.
        """
        tokens = int(rollout.sequences.response_lengths[rows].sum())
        mine = rows[self.processes.rank :: self.processes.count]
        sums: defaultdict[str, Tensor | float] = defaultdict(float)
        for part_rows, part in rollout.sequences.select(mine).in_chunks(
            self.settings.forward_batch_size
        ):
            at = mine[part_rows]
            metrics: dict[str, Tensor] = {}
            if "policy" in roles:
                metrics |= self._policy_part(rollout, at, part, tokens)
            if "critic" in roles:
                metrics |= self._critic_part(rollout, at, part, tokens)
            for name, total in metrics.items():
                sums[name] += total
        if demonstrations is not None and "policy" in roles:
            sums["ptx_loss"] = self._demonstrations_part(demonstrations) * tokens
        totals = self.processes.sum(torch.stack([torch.as_tensor(v) for v in sums.values()]))
        return dict(zip(sums, (totals / tokens).tolist(), strict=True))

    def _policy_part(
        self, rollout: Rollout, rows: Tensor, part: Sequences, tokens: int
    ) -> dict[str, Tensor]:
        settings, mask, width = self.settings, part.mask, part.response_width
        old = rollout.log_probs[rows, :width]
        new = self.roles.log_probs("policy", part, training=True).log_probs
        ratio = importance_ratio(new, old)
        surrogate = clipped_surrogate(
            ratio, rollout.advantages[rows, :width], settings.clip_range, settings.dual_clip
        )
        loss = objective = masked_sum(surrogate.loss, mask)
        metrics = {}
        if settings.kl_penalty == "loss":
            estimator = _ESTIMATORS[settings.kl_estimator]
            kl = masked_sum(estimator(new, rollout.reference_log_probs[rows, :width]), mask)
            objective = loss + rollout.beta * kl
            metrics["kl_loss"] = rollout.beta * kl.detach()
        (objective / tokens).backward()
        with torch.no_grad():
            return metrics | {
                "policy_loss": loss.detach(),
                "ratio_mean": masked_sum(ratio, mask),
                "approx_kl": masked_sum(k3(old, new), mask),
                "policy_clip_fraction": masked_sum(surrogate.clipped.float(), mask),
            }

    def _critic_part(
        self, rollout: Rollout, rows: Tensor, part: Sequences, tokens: int
    ) -> dict[str, Tensor]:
        if rollout.values is None:
            raise ValueError("a rollout without values cannot teach a critic")
        mask, width = part.mask, part.response_width
        values = self.roles.values(part, training=True)
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

    def _demonstrations_part(self, demonstrations: Sequences) -> Tensor:
        """Add the gradient of the SFT loss (Ouyang et al. 2022, equation 2); return its share."""
        tokens = int(demonstrations.response_lengths.sum())
        every = torch.arange(len(demonstrations), device=demonstrations.ids.device)
        mine = demonstrations.select(every[self.processes.rank :: self.processes.count])
        total = torch.zeros((), device=demonstrations.ids.device)
        for _, part in mine.in_chunks(self.settings.forward_batch_size):
            log_probs = self.roles.log_probs("policy", part, training=True, temperature=1.0)
            loss = -masked_sum(log_probs.log_probs, part.mask) / tokens
            (self.settings.ptx_coefficient * loss).backward()
            total += loss.detach()
        return total

    def refused(self, metrics: dict[str, float]) -> bool:
        """Say whether a minibatch must not be applied: not finite, or far off the old policy."""
        if not all(math.isfinite(value) for value in metrics.values()):
            return True
        bound = self.settings.max_ratio
        return bound is not None and metrics.get("ratio_mean", 1.0) > bound

    def drop(self) -> None:
        """Forget the accumulated gradients."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def step(self, roles: Sequence[TrainedRole]) -> dict[str, float] | None:
        """Clip each network's gradient, move its weights, forget the gradients.

        Args:
            roles: Those that learn.

        Returns:
            The gradient norms before clipping; None, and nothing moves, when one is not finite.
        """
        norms = {}
        for role in roles:
            self.processes.sum_gradients(self.weights[role])
            norms[f"{role.replace('critic', 'value')}_grad_norm"] = float(
                torch.nn.utils.clip_grad_norm_(self.weights[role], self.settings.max_grad_norm)
            )
        finite = all(math.isfinite(norm) for norm in norms.values())
        if finite:
            for role in roles:
                self.optimizers[role].step()
        self.drop()
        return norms if finite else None

    def average_policy(self) -> None:
        """Take the policy's present weights into their running mean, if there is one."""
        if self.average is not None and self.settings.ema_decay is not None:
            for mean, weight in zip(self.average, self.weights["policy"], strict=True):
                mean.lerp_(weight.detach(), 1.0 - self.settings.ema_decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the policy be its running mean for a while, if there is one; then as it was."""
        if self.average is None:
            yield
            return
        weights = self.weights["policy"]
        kept = [weight.detach().clone() for weight in weights]
        self.adopt_average()
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, earlier in zip(weights, kept, strict=True):
                    weight.copy_(earlier)

    def adopt_average(self) -> None:
        """Put the running mean, if there is one, in the policy's place."""
        if self.average is not None:
            with torch.no_grad():
                for mean, weight in zip(self.average, self.weights["policy"], strict=True):
                    weight.copy_(mean)
