"""Settings of PPO and the protocol of its roles."""

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
    """Policy, reference, reward model and critic, as PPO calls them."""

    @property
    def pad_token_id(self) -> int:
        """Token that fills sequences up on the right."""

    @property
    def device(self) -> torch.device:
        """Device of the roles' weights."""

    @property
    def computes_in_float16(self) -> bool:
        """True where passes compute in float16, so that losses are scaled."""

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[Seed]) -> list[list[int]]:
        """Return one response per prompt, each sampled from its own seed."""

    def ended(self, response: Sequence[int]) -> bool:
        """Return whether a response ends with a stop token."""

    def log_probs(
        self,
        role: Literal["policy", "reference"],
        batch: Sequences,
        *,
        training: bool = False,
        temperature: float | None = None,
    ) -> TokenLogProbs:
        """Return log-probability and entropy per response token, [batch, time] each.

        `temperature` None is the sampling temperature. The entropy is read only from the policy's
        passes without gradients.
        """

    def values(self, batch: Sequences, *, training: bool = False) -> Tensor:
        """Return V(s_t) before each response token, [batch, time].

        Of a critic that is a head on the policy, only the head gets gradients here.
        """

    def log_probs_and_values(
        self, batch: Sequences, *, training: bool = False
    ) -> tuple[TokenLogProbs, Tensor]:
        """Return the policy's `log_probs` and `values` of one pass; used with `critic: head` only."""

    def scores(self, batch: Sequences) -> Tensor:
        """Return the reward model's normalised scores, [batch]; unused with explicit sources."""

    def trainable(self, role: TrainedRole) -> dict[str, torch.nn.Parameter]:
        """Return the trainable parameters of a role, by name."""


@dataclass(frozen=True)
class PPOSettings:
    """Hyperparameters; meanings, units and defaults are those of the recipe's `ppo` section.

    `sampling_batch_size` is the section `generation`'s `batch_size`.
    """

    episodes: int = 10_000
    rollout_batch_size: int = 128
    minibatch_size: int = 32
    forward_batch_size: int = 16
    sampling_batch_size: int | None = None
    auto_batch: bool = False
    epochs: int = 2
    responses_per_prompt: int = 1
    learning_rate: float = 1e-5
    value_learning_rate: float = 5e-5
    warmup_rollouts: int = 10
    lr_schedule: Literal["linear", "constant"] = "linear"
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"] = (
        "adamw_torch"
    )
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    ema_decay: float | None = None
    beta: float = 0.05
    kl_penalty: Literal["reward", "loss"] = "reward"
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    kl_target: float | None = None
    kl_horizon: float = 10_000.0
    advantage_estimator: Literal["gae", "rloo", "grpo", "batch_mean"] = "gae"
    critic: Literal["adapter", "head"] = "adapter"
    vf_coef: float = 0.1
    critic_warmup_rollouts: int = 0
    gamma: float = 1.0
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    dual_clip: float | None = None
    value_clip_range: float | None = 0.2
    whiten_advantages: bool = True
    whiten_rewards: bool = False
    score_clip: float | None = 5.0
    score_normalization: Literal["sft", "running"] = "sft"
    missing_eos_score: float | None = -1.0
    min_response_length: int | None = None
    ptx_coefficient: float = 0.0
    ptx_batch_size: int = 32
    kl_early_stop: float | None = 0.1
    max_ratio: float | None = 10.0
    kl_alarm: float = 25.0
    kl_stop: float | None = 50.0
    samples_per_run: int = 5
    save_minutes: float | None = 10.0
    save_rollouts: int | None = None
    keep_last: int = 2
    eval_rollouts: int | None = 10
    max_mismatch: float | None = 0.1
    importance_sampling_clip_max: float | None = None
    on_alarm: Literal["warn", "raise_beta", "rollback", "stop"] = "warn"
    alarm_clear_evaluations: int = 2
    alarm_beta_factor: float = 2.0
    alarm_rollbacks: int = 3
    seed: int = 0

    @property
    def sampled_at_once(self) -> int:
        """Responses per batch of sampling, at most a rollout."""
        return min(self.sampling_batch_size or self.rollout_batch_size, self.rollout_batch_size)

    @property
    def rollouts(self) -> int:
        """Number of rollouts, rounded up: the last one is a full batch too."""
        return -(-self.episodes // self.rollout_batch_size)

    @property
    def has_critic(self) -> bool:
        """True if a critic is trained."""
        return self.advantage_estimator == "gae"

    @property
    def joint_critic(self) -> bool:
        """True if the critic is a head on the policy, so that one pass gives both outputs."""
        return self.has_critic and self.critic == "head"

    @property
    def networks(self) -> dict[TrainedRole, tuple[TrainedRole, ...]]:
        """Trained networks, by the first of their roles; each has one optimiser and gradient clip."""
        if self.joint_critic:
            return {"policy": self.trained}
        return {role: (role,) for role in self.trained}

    @property
    def trained(self) -> tuple[TrainedRole, ...]:
        """Roles with trained weights."""
        return ("policy", "critic") if self.has_critic else ("policy",)

    def trained_in(self, rollout: int) -> tuple[TrainedRole, ...]:
        """Return the roles trained in rollout `rollout`: the critic alone in its warm-up."""
        return ("critic",) if rollout < self.critic_warmup_rollouts else self.trained

    def learning_rate_factor(self, rollout: int) -> float:
        """Return the factor of both learning rates in rollout `rollout`, counted from 0.

        From 0.1 to 1 over the warm-up (Ouyang et al. 2022, appendix C.4), which takes half of the
        run at most, then linearly to 0 or on at 1.
        """
        warmup = min(self.warmup_rollouts, self.rollouts // 2)
        if rollout < warmup:
            return 0.1 + 0.9 * rollout / warmup
        if self.lr_schedule == "constant":
            return 1.0
        return (self.rollouts - rollout) / (self.rollouts - warmup)
