"""The numbers of PPO and the roles it drives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from rlhfctl.maths.log_probs import TokenLogProbs
    from rlhfctl.maths.sampling import Seed
    from rlhfctl.maths.sequences import Sequences


TrainedRole = Literal["policy", "critic"]


class Roles(Protocol):
    """What PPO asks of policy, reference, reward model and critic."""

    @property
    def pad_token_id(self) -> int:
        """Token that fills sequences up on the right."""

    @property
    def device(self) -> torch.device:
        """Device of the roles' weights."""

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[Seed]) -> list[list[int]]:
        """Return a response to each prompt, sampled from its own seed."""

    def ended(self, response: Sequence[int]) -> bool:
        """Say whether a response ended by a stop token."""

    def log_probs(
        self,
        role: Literal["policy", "reference"],
        batch: Sequences,
        *,
        training: bool = False,
        temperature: float | None = None,
    ) -> TokenLogProbs:
        """Return log-probability and entropy of each response token, two [B, R].

        At a temperature; None: that of sampling. Entropy is read of the policy's passes without
        gradients alone.
        """

    def values(self, batch: Sequences, *, training: bool = False) -> Tensor:
        """Return V(s_t) before each response token, [B, R]."""

    def scores(self, batch: Sequences) -> Tensor:
        """Return the reward model's normalised scores, [B]; asked where no sources are given."""

    def trainable(self, role: TrainedRole) -> dict[str, torch.nn.Parameter]:
        """Return the weights that a role's optimiser moves, by name."""


@dataclass(frozen=True)
class PPOSettings:
    """Every number of the algorithm; meanings and units as in the recipe's `ppo` section."""

    episodes: int
    rollout_batch_size: int
    minibatch_size: int
    forward_batch_size: int
    epochs: int
    responses_per_prompt: int
    learning_rate: float
    value_learning_rate: float
    warmup_rollouts: int
    lr_schedule: Literal["linear", "constant"]
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"]
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    weight_decay: float
    max_grad_norm: float
    ema_decay: float | None
    beta: float
    kl_penalty: Literal["reward", "loss"]
    kl_estimator: Literal["k1", "k2", "k3"]
    kl_target: float | None
    kl_horizon: float
    advantage_estimator: Literal["gae", "batch_mean"]
    critic_warmup_rollouts: int
    gamma: float
    gae_lambda: float
    clip_range: float
    dual_clip: float | None
    value_clip_range: float | None
    whiten_advantages: bool
    whiten_rewards: bool
    score_clip: float | None
    score_normalization: Literal["sft", "running"]
    missing_eos_score: float | None
    min_response_length: int | None
    ptx_coefficient: float
    ptx_batch_size: int
    kl_early_stop: float | None
    max_ratio: float | None
    kl_alarm: float
    kl_stop: float | None
    samples_per_run: int
    save_rollouts: int | None
    eval_rollouts: int | None
    seed: int

    @property
    def rollouts(self) -> int:
        """How many rollouts the episodes make; the last one is whole too."""
        return -(-self.episodes // self.rollout_batch_size)

    @property
    def has_critic(self) -> bool:
        """Whether a critic is learnt."""
        return self.advantage_estimator == "gae"

    @property
    def trained(self) -> tuple[TrainedRole, ...]:
        """The roles whose weights move."""
        return ("policy", "critic") if self.has_critic else ("policy",)

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
