"""The `ppo` section: every switch of the algorithm, named as the papers name it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rlhfctl.recipe.base import Count, Natural, NonNegative, Positive, Section, Share


class KLControllerSection(Section):
    """Ziegler et al. 2019, section 2.2: beta follows a target KL, in nats a response."""

    target: Positive = 6.0
    horizon: Positive = Field(10_000, description="In episodes.")


class PPOSection(Section):
    """Proximal policy optimisation against the reward model, with a learnt critic."""

    sft: str | None = Field(None, description="SFT checkpoint to use; null: the run's.")
    rm: str | None = Field(None, description="Reward model to use; null: the run's.")

    episodes: Count = Field(50_000, description="Prompts answered over the whole run.")
    rollout_batch_size: Count = Field(128, description="Episodes collected at a time.")
    minibatch_size: Count = Field(32, description="Episodes an optimiser step.")
    forward_batch_size: Count = Field(
        16, description="Episodes a forward pass; changes memory, never the update."
    )
    epochs: Count = Field(2, description="Passes over each rollout.")

    learning_rate: Positive = Field(1e-5, description="Of the policy.")
    value_learning_rate: Positive = Field(5e-5, description="Of the critic.")
    warmup_rollouts: Natural = Field(10, description="From 0.1 of the rates; then linear to 0.")
    lr_schedule: Literal["linear", "constant"] = "linear"
    adam_beta1: float = Field(0.9, ge=0.0, lt=1.0)
    adam_beta2: float = Field(0.95, ge=0.0, lt=1.0)
    adam_epsilon: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    max_grad_norm: Positive = Field(1.0, description="For policy and critic, each on its own.")

    beta: NonNegative = Field(0.05, description="Coefficient of the KL penalty in the reward.")
    kl_controller: KLControllerSection | None = Field(
        None, description="null: beta stays; else Ziegler's adaptive controller starts from it."
    )
    gamma: Share = 1.0
    gae_lambda: Share = 0.95
    clip_range: Positive = 0.2
    value_clip_range: Positive | None = Field(0.2, description="null: no value clipping.")
    whiten_advantages: bool = True
    whiten_rewards: bool = False
    score_clip: Positive | None = Field(5.0, description="Bound on the normalised score.")
    score_normalization: Literal["sft", "running"] = Field(
        "sft", description="By the SFT policy's scores, kept in the RM; or by running statistics."
    )
    missing_eos_score: float | None = Field(
        -1.0, description="Replaces the score of a response that did not end; null: it is kept."
    )

    kl_early_stop: Positive | None = Field(
        0.1, description="Approximate KL a token at which a rollout's epochs end; null: never."
    )
    max_ratio: float | None = Field(
        10.0, gt=1.0, description="Minibatches whose mean ratio is beyond this are skipped."
    )
    kl_alarm: Positive = Field(25.0, description="Nats a response from which on it warns.")
    kl_stop: Positive | None = Field(50.0, description="Nats a response at which it stops.")

    max_prompt_length: Count = Field(512, description="Longer prompts are left out, in tokens.")
    max_new_tokens: Count = Field(128, description="Length limit of a response.")
    temperature: Positive = 1.0
    stop_tokens: list[str] = Field(
        default_factory=list, description="Tokens that end a response besides EOS."
    )

    gradient_checkpointing: bool = False
    gate: Literal["refuse", "warn"] = Field(
        "refuse", description="What to do when a check before PPO fails."
    )
    samples_per_run: Natural = Field(5, description="How often sample responses are kept.")
    save_rollouts: Count | None = Field(None, description="Rollouts between checkpoints.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rollout_batch_size % self.minibatch_size:
            raise ValueError(
                f"rollout_batch_size ({self.rollout_batch_size}) must be a multiple of "
                f"minibatch_size ({self.minibatch_size})"
            )
        if self.episodes < self.rollout_batch_size:
            raise ValueError(
                f"episodes ({self.episodes}) must be at least one rollout_batch_size "
                f"({self.rollout_batch_size})"
            )
        if self.kl_stop is not None and self.kl_stop <= self.kl_alarm:
            raise ValueError(f"kl_stop ({self.kl_stop}) must lie above kl_alarm ({self.kl_alarm})")
        return self
