"""The numbers of PPO and the roles it drives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from rlhfctl.maths.log_probs import TokenLogProbs
    from rlhfctl.maths.sequences import Sequences


class Actors(Protocol):
    """What PPO asks of policy, reference, reward model and critic."""

    pad_token_id: int
    device: torch.device

    def generate(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return a response to each prompt, from the torch generator's present state."""

    def ended(self, response: Sequence[int]) -> bool:
        """Say whether a response ended by a stop token."""

    def log_probs(
        self, role: Literal["policy", "reference"], batch: Sequences, *, training: bool = False
    ) -> TokenLogProbs:
        """Return log-probability and entropy of each response token, two [B, R]."""

    def values(self, batch: Sequences, *, training: bool = False) -> Tensor:
        """Return V(s_t) before each response token, [B, R]."""

    def scores(self, batch: Sequences) -> Tensor:
        """Return the reward model's normalised scores, [B]."""

    def trainable(self, role: Literal["policy", "critic"]) -> dict[str, torch.nn.Parameter]:
        """Return the weights that a role's optimiser moves, by name."""


@dataclass(frozen=True)
class PPOSettings:
    """Every number of the algorithm; meanings and units as in the recipe's `ppo` section."""

    episodes: int
    rollout_batch_size: int
    minibatch_size: int
    forward_batch_size: int
    epochs: int
    learning_rate: float
    value_learning_rate: float
    warmup_rollouts: int
    lr_schedule: Literal["linear", "constant"]
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    weight_decay: float
    max_grad_norm: float
    beta: float
    kl_target: float | None
    kl_horizon: float
    gamma: float
    gae_lambda: float
    clip_range: float
    value_clip_range: float | None
    whiten_advantages: bool
    whiten_rewards: bool
    score_clip: float | None
    score_normalization: Literal["sft", "running"]
    missing_eos_score: float | None
    kl_early_stop: float | None
    max_ratio: float | None
    kl_alarm: float
    kl_stop: float | None
    samples_per_run: int
    save_rollouts: int | None
    seed: int

    @property
    def rollouts(self) -> int:
        """How many rollouts the episodes make; the last one is whole too."""
        return -(-self.episodes // self.rollout_batch_size)

    def learning_rate_factor(self, rollout: int) -> float:
        """Return what both rates are multiplied by in rollout `rollout`, counted from 0.

        From 0.1 to 1 over the warm-up (Ouyang et al. 2022, appendix C.4), which takes half of the
        run at most, then linearly to 0 or on at 1.
        """
        warmup = min(self.warmup_rollouts, self.rollouts // 2)
        if rollout < warmup:
            return 0.1 + 0.9 * rollout / warmup
        if self.lr_schedule == "constant":
            return 1.0
        return (self.rollouts - rollout) / (self.rollouts - warmup)
