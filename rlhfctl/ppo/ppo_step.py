"""One optimiser step of policy and critic on a minibatch of episodes."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import torch

from rlhfctl.errors import EnvironmentFault
from rlhfctl.maths.kl import k2, k3
from rlhfctl.maths.losses import (
    clipped_surrogate,
    clipped_value_loss,
    importance_ratio,
    truncated_importance_weights,
)
from rlhfctl.maths.masking import masked_sum
from rlhfctl.ppo.pass_size import PassSize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from rlhfctl.maths.sequences import Sequences
    from rlhfctl.ppo.processes import Processes
    from rlhfctl.ppo.rollout import Rollout
    from rlhfctl.ppo.settings import PPOSettings, Roles, TrainedRole

_ESTIMATORS = {"k2": k2, "k3": k3}


def new_optimizer(
    weights: Sequence[torch.nn.Parameter], rate: float, settings: PPOSettings
) -> torch.optim.Optimizer:
    """Return AdamW, by torch or (8-bit moments) by bitsandbytes.

    Args:
        weights: Parameters of one role, all on one device.
        rate: Peak learning rate.
        settings: Optimiser and its hyperparameters.

    Raises:
        EnvironmentFault: An 8-bit optimiser was requested for parameters on a CPU.
    """
    betas = (settings.adam_beta1, settings.adam_beta2)
    epsilon, decay = settings.adam_epsilon, settings.weight_decay
    if settings.optim in {"adamw_torch", "adamw_torch_fused"}:
        return torch.optim.AdamW(
            weights,
            lr=rate,
            betas=betas,
            eps=epsilon,
            weight_decay=decay,
            # None lets torch take its loop over all weights at once on a GPU; False forbids it.
            fused=settings.optim == "adamw_torch_fused" or None,
        )
    if not weights[0].is_cuda:
        raise EnvironmentFault(
            f"{settings.optim} needs a GPU, and the model is on the CPU",
            "ppo.optim",
            "Use --set ppo.optim=adamw_torch here.",
        )
    from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit

    optimizer_class = AdamW8bit if settings.optim == "adamw_8bit" else PagedAdamW8bit
    optimizer: torch.optim.Optimizer = optimizer_class(
        weights, lr=rate, betas=betas, eps=epsilon, weight_decay=decay
    )
    return optimizer


class PPOStep:
    """Optimisers of policy and critic, and one step of each per minibatch.

    Attributes:
        weights: Trainable parameters per role.
        optimizers: One per network (`PPOSettings.networks`), with a learning rate per role.
        scaler: Scale of the losses; 1 unless passes compute in float16.
        pass_size: Episodes per forward pass.
    """

    def __init__(
        self,
        roles: Roles,
        settings: PPOSettings,
        processes: Processes,
        pass_size: PassSize | None = None,
    ) -> None:
        self.roles = roles
        self.pass_size = pass_size or PassSize(settings.forward_batch_size)
        self.settings = settings
        self.processes = processes
        self.weights = {role: list(roles.trainable(role).values()) for role in settings.trained}
        self.rates = {"policy": settings.learning_rate, "critic": settings.value_learning_rate}
        self.optimizers = {
            name: self._optimizer_of(members) for name, members in settings.networks.items()
        }
        # Trained weights and their gradients are fp32, but gradients of states pass through the
        # base in float16, where those below 6e-8 would vanish.
        self.scaler = torch.amp.GradScaler(roles.device.type, enabled=roles.computes_in_float16)

    def _optimizer_of(self, members: Sequence[TrainedRole]) -> torch.optim.Optimizer:
        """Return the optimiser of a network, with a group of weights per role."""
        first, *others = members
        optimizer = new_optimizer(self.weights[first], self.rates[first], self.settings)
        for role in others:
            optimizer.add_param_group({"params": self.weights[role], "lr": self.rates[role]})
        return optimizer

    def set_rates(self, factor: float) -> None:
        """Scale both learning rates for the coming rollout."""
        for name, members in self.settings.networks.items():
            groups = self.optimizers[name].param_groups
            for role, group in zip(members, groups, strict=True):
                group["lr"] = self.rates[role] * factor

    def accumulate(
        self,
        rollout: Rollout,
        rows: Tensor,
        roles: Sequence[TrainedRole],
        demonstrations: Sequences | None = None,
    ) -> dict[str, float]:
        """Accumulate the gradients of a minibatch over forward passes of `pass_size` episodes.

        Every loss is a sum over tokens divided by the minibatch's tokens, so that responses weigh
        by their tokens and splitting, over passes or processes, changes nothing.

        Args:
            rollout: Episodes with the log-probabilities and values at collection time.
            rows: [n], indices of the minibatch's episodes, over all processes.
            roles: Roles to train on it.
            demonstrations: Batch of the PPO-ptx loss, over all processes.

        Returns:
            Means over the minibatch's response tokens; `ptx_loss` over the demonstrations'.
        """
        tokens = int(rollout.sequences.response_lengths[rows].sum())

        def attempt(size: int) -> dict[str, Tensor | float]:
            try:
                return self._accumulate(rollout, rows, roles, demonstrations, tokens, size)
            except RuntimeError:
                self.drop()
                raise

        sums = self.pass_size.run(attempt)
        totals = self.processes.sum(torch.stack([torch.as_tensor(v) for v in sums.values()]))
        return dict(zip(sums, (totals / tokens).tolist(), strict=True))

    def _accumulate(
        self,
        rollout: Rollout,
        rows: Tensor,
        roles: Sequence[TrainedRole],
        demonstrations: Sequences | None,
        tokens: int,
        size: int,
    ) -> dict[str, Tensor | float]:
        """Return this process's sums over the minibatch, `size` episodes per pass."""
        local_rows = rows[self.processes.rank :: self.processes.count]
        sums: defaultdict[str, Tensor | float] = defaultdict(float)
        for part_rows, part in rollout.sequences.select(local_rows).in_chunks(size):
            chunk_rows = local_rows[part_rows]
            metrics: dict[str, Tensor] = {}
            if self.settings.joint_critic and "policy" in roles:
                metrics |= self._joint_part(rollout, chunk_rows, part, tokens)
            else:
                if "policy" in roles:
                    metrics |= self._policy_part(rollout, chunk_rows, part, tokens)
                if "critic" in roles:
                    metrics |= self._critic_part(rollout, chunk_rows, part, tokens)
            for name, total in metrics.items():
                sums[name] += total
        if demonstrations is not None and "policy" in roles:
            sums["ptx_loss"] = self._demonstrations_part(demonstrations, size) * tokens
        return sums

    def try_longest(self, batch: Sequences) -> None:
        """Find a pass size for the longest episodes, by passes beside memory for the optimisers.

        Args:
            batch: At least `forward_batch_size` of them, where there are as many.

        Raises:
            RuntimeError: torch's own: memory runs out with one episode.
        """

        def attempt(size: int) -> None:
            try:
                moments = [
                    torch.zeros_like(weight)
                    for weights in self.weights.values()
                    for weight in weights
                    for _ in range(2)
                ]
                _, part = next(batch.in_chunks(size))
                if self.settings.joint_critic:
                    policy, values = self.roles.log_probs_and_values(part, training=True)
                    (policy.log_probs.sum() + values.sum()).backward()
                else:
                    self.roles.log_probs("policy", part, training=True).log_probs.sum().backward()
                    if "critic" in self.weights:
                        self.roles.values(part, training=True).sum().backward()
                del moments
            finally:
                self.drop()

        self.pass_size.run(attempt)

    def _policy_part(
        self, rollout: Rollout, rows: Tensor, part: Sequences, tokens: int
    ) -> dict[str, Tensor]:
        new = self.roles.log_probs("policy", part, training=True).log_probs
        objective, metrics = self._policy_loss(rollout, rows, part, new)
        self.scaler.scale(objective / tokens).backward()
        return metrics

    def _critic_part(
        self, rollout: Rollout, rows: Tensor, part: Sequences, tokens: int
    ) -> dict[str, Tensor]:
        values = self.roles.values(part, training=True)
        loss, metrics = self._value_loss(rollout, rows, part, values)
        self.scaler.scale(loss / tokens).backward()
        return metrics

    def _joint_part(
        self, rollout: Rollout, rows: Tensor, part: Sequences, tokens: int
    ) -> dict[str, Tensor]:
        """Add the gradient of both losses, by one pass; as Ziegler et al. 2019's `train_policy.py`."""
        policy, values = self.roles.log_probs_and_values(part, training=True)
        objective, metrics = self._policy_loss(rollout, rows, part, policy.log_probs)
        value_loss, value_metrics = self._value_loss(rollout, rows, part, values)
        objective = objective + self.settings.vf_coef * value_loss
        self.scaler.scale(objective / tokens).backward()
        return metrics | value_metrics

    def _policy_loss(
        self, rollout: Rollout, rows: Tensor, part: Sequences, new: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the policy's loss and its metrics, summed over tokens; `new` has gradients."""
        settings, mask, width = self.settings, part.mask, part.response_width
        old = rollout.log_probs[rows, :width]
        # Old and new log-probabilities come from the same forward pass, so ratios start at 1
        # (known bug 11 in docs/explanation/ppo.md); fp32 and a bounded exponent prevent overflow (20).
        ratio = importance_ratio(new, old)
        surrogate = clipped_surrogate(
            ratio, rollout.advantages[rows, :width], settings.clip_range, settings.dual_clip
        )
        metrics = {}
        weighted, of_engine = surrogate.loss, rollout.engine_log_probs
        cap = settings.importance_sampling_clip_max
        if cap is not None and of_engine is not None:
            weights = truncated_importance_weights(old, of_engine[rows, :width], cap)
            weighted = weighted * weights
            metrics["importance_weight"] = masked_sum(weights, mask)
        loss = objective = masked_sum(weighted, mask)
        if settings.kl_penalty == "loss":
            estimator = _ESTIMATORS[settings.kl_estimator]
            # The KL is in the loss or in the reward, never in both (known bug 18 in docs/explanation/ppo.md).
            kl = masked_sum(estimator(new, rollout.reference_log_probs[rows, :width]), mask)
            objective = loss + rollout.beta * kl
            metrics["kl_loss"] = rollout.beta * kl.detach()
        with torch.no_grad():
            return objective, metrics | {
                "policy_loss": loss.detach(),
                "ratio_mean": masked_sum(ratio, mask),
                "approx_kl": masked_sum(k3(old, new), mask),
                "policy_clip_fraction": masked_sum(surrogate.clipped.float(), mask),
            }

    def _value_loss(
        self, rollout: Rollout, rows: Tensor, part: Sequences, values: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the critic's loss and its metrics, summed over tokens; `values` have gradients."""
        if rollout.values is None:
            raise ValueError("training the critic needs a rollout with values")
        mask, width = part.mask, part.response_width
        clipped = clipped_value_loss(
            values,
            rollout.values[rows, :width],
            rollout.returns[rows, :width],
            self.settings.value_clip_range,
        )
        loss = masked_sum(clipped.loss, mask)
        with torch.no_grad():
            return loss, {
                "value_loss": loss.detach(),
                "value_clip_fraction": masked_sum(clipped.clipped.float(), mask),
            }

    def _demonstrations_part(self, demonstrations: Sequences, size: int) -> Tensor:
        """Add the gradient of the SFT loss (Ouyang et al. 2022, equation 2); return its share."""
        tokens = int(demonstrations.response_lengths.sum())
        indices = torch.arange(len(demonstrations), device=demonstrations.ids.device)
        local = demonstrations.select(indices[self.processes.rank :: self.processes.count])
        total = torch.zeros((), device=demonstrations.ids.device)
        for _, part in local.in_chunks(size):
            log_probs = self.roles.log_probs("policy", part, training=True, temperature=1.0)
            loss = -masked_sum(log_probs.log_probs, part.mask) / tokens
            self.scaler.scale(self.settings.ptx_coefficient * loss).backward()
            total += loss.detach()
        return total

    def must_skip(self, metrics: dict[str, float]) -> bool:
        """Return True if a minibatch is not finite or its mean ratio exceeds `max_ratio`."""
        if not all(math.isfinite(value) for value in metrics.values()):
            return True
        bound = self.settings.max_ratio
        return bound is not None and metrics.get("ratio_mean", 1.0) > bound

    def drop(self) -> None:
        """Discard the accumulated gradients."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def step(self, roles: Sequence[TrainedRole]) -> dict[str, float] | None:
        """Clip the gradient of each network, step its optimiser, and discard the gradients.

        Args:
            roles: Roles to step.

        Returns:
            Gradient norms before clipping; None, and no step, if one is not finite. In float16 the
            scale of the losses is then halved.
        """
        norms, stepped = {}, []
        for name, members in self.settings.networks.items():
            active = [role for role in members if role in roles]
            if not active:
                continue
            weights = [weight for role in active for weight in self.weights[role]]
            stepped.append(self.optimizers[name])
            # Summed first, so that every process sees an overflow in any and scales alike.
            self.processes.sum_gradients(weights)
            self.scaler.unscale_(stepped[-1])
            # Each network on its own (known bug 2 in docs/explanation/ppo.md: gradients never clipped).
            norms[f"{active[0].replace('critic', 'value')}_grad_norm"] = float(
                torch.nn.utils.clip_grad_norm_(weights, self.settings.max_grad_norm)
            )
        finite = all(math.isfinite(norm) for norm in norms.values())
        if finite:
            for optimizer in stepped:
                self.scaler.step(optimizer)
        self.scaler.update()
        self.drop()
        return norms if finite else None
