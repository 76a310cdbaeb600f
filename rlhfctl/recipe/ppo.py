"""The `ppo` section: every switch of the algorithm, named as the papers name it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from rlhfctl.recipe.base import Count, Natural, NonNegative, Positive, Section, Share

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN_RM = "rm"
"""The reward source that stands for the reward model of `ppo.rm`, else the run's."""


def source_kind(source: str) -> Literal["rm", "folder", "function", "server"]:
    """Tell what a reward source is from how it is written; a folder may be named with `./`."""
    if source == RUN_RM:
        return "rm"
    if source.startswith(("http://", "https://")):
        return "server"
    module, colon, function = source.partition(":")
    if colon and function.isidentifier() and all(map(str.isidentifier, module.split("."))):
        return "function"
    return "folder"


def source_file(source: str) -> str | None:
    """Return the local folder or module file behind a reward source, or None.

    A function's module is looked for in the working folder; elsewhere it is an installed package.
    """
    kind = source_kind(source)
    if kind == "function":
        return source.partition(":")[0].replace(".", "/") + ".py"
    return source if kind == "folder" else None


class KLControllerSection(Section):
    """Ziegler et al. 2019, section 2.2: beta follows a target KL, in nats a response."""

    target: Positive = 6.0
    horizon: Positive = Field(10_000, description="In episodes.")


class RewardSourceSection(Section):
    """One giver of scores."""

    source: str = Field(
        RUN_RM,
        min_length=1,
        description="`rm`, a reward model's folder, `module:function`, or an http(s) address.",
    )
    weight: float = Field(1.0, description="Of its scores in the weighted sum; may be negative.")
    timeout: Positive = Field(60.0, description="Seconds that an http server has for an answer.")
    retries: Natural = Field(3, description="Further tries after an http server has failed.")


class AlarmsSection(Section):
    """When a look at held-out prompts raises an alarm; null: never by this one.

    A figure must be beyond its threshold and have moved significantly since SFT, prompt by prompt;
    `kl_alarm` is the threshold of KL.
    """

    length: Positive | None = Field(
        0.5,
        description="Growth of responses as a share of SFT's, without a gain in the true reward.",
    )
    repetition: Positive | None = Field(0.1, description="Rise of the share of repeated n-grams.")
    certainty: Positive | None = Field(0.2, description="Rise of the share that sounds certain.")
    entropy: float | None = Field(
        0.1, gt=0.0, lt=1.0, description="Share of SFT's entropy below which it has collapsed."
    )
    divergence: Positive | None = Field(
        0.2,
        description="Fall of the true reward from its best while the proxy holds, in standard "
        "deviations of SFT's.",
    )
    score_range: float | None = Field(
        0.2, gt=0.0, lt=1.0, description="Share of scores beyond those of held-out comparisons."
    )
    disagreement: float | None = Field(
        2.0, gt=1.0, description="Factor by which the reward models' disagreement has risen."
    )
    false_alarms: float = Field(
        0.01, gt=0.0, lt=1.0, description="Chance of any false alarm granted to a whole run."
    )


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
    responses_per_prompt: Count = Field(1, description="Episodes that share a prompt.")

    reward_sources: list[RewardSourceSection] = Field(
        default_factory=lambda: [RewardSourceSection()],
        min_length=1,
        description="What gives the score; several are combined by reward_rule.",
    )
    reward_rule: Literal["weighted_sum", "mean", "worst", "uncertainty"] = Field(
        "weighted_sum", description="Or an ensemble's: Coste et al. 2024."
    )
    uncertainty_penalty: NonNegative = Field(
        0.1, description="Times the sources' variance, taken from their mean: uncertainty only."
    )

    learning_rate: Positive = Field(1e-5, description="Of the policy.")
    value_learning_rate: Positive = Field(5e-5, description="Of the critic.")
    warmup_rollouts: Natural = Field(10, description="From 0.1 of the rates; then linear to 0.")
    lr_schedule: Literal["linear", "constant"] = "linear"
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"] = Field(
        "adamw_torch", description="As in transformers; the 8-bit ones need CUDA."
    )
    adam_beta1: float = Field(0.9, ge=0.0, lt=1.0)
    adam_beta2: float = Field(0.95, ge=0.0, lt=1.0)
    adam_epsilon: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    max_grad_norm: Positive = Field(1.0, description="For policy and critic, each on its own.")

    ema_decay: float | None = Field(
        None, gt=0.0, lt=1.0, description="Of a running mean of policies, a rollout; it is saved."
    )

    beta: NonNegative = Field(0.05, description="Coefficient of the KL penalty.")
    kl_penalty: Literal["reward", "loss"] = Field(
        "reward", description="Where the penalty stands: in each token's reward, or in the loss."
    )
    kl_estimator: Literal["k1", "k2", "k3"] = Field(
        "k1", description="k1 in the reward; k2 (KL(pi||ref)) or k3 (KL(ref||pi)) in the loss."
    )
    kl_controller: KLControllerSection | None = Field(
        None, description="null: beta stays; else Ziegler's adaptive controller starts from it."
    )
    advantage_estimator: Literal["gae", "batch_mean"] = Field(
        "gae", description="With the critic; or without: REINFORCE less the batch's mean return."
    )
    critic_init: Literal["reward_model", "sft"] = Field(
        "reward_model", description="What the critic starts as; sft: with a value head of zeros."
    )
    critic_warmup_rollouts: Natural = Field(
        0, description="First rollouts in which the critic alone learns."
    )
    gamma: Share = 1.0
    gae_lambda: Share = 0.95
    clip_range: Positive = 0.2
    dual_clip: float | None = Field(
        None, gt=1.0, description="Bound c on the ratio where the advantage is negative."
    )
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

    min_response_length: Count | None = Field(
        None, description="Shorter responses have their score replaced likewise."
    )

    ptx_coefficient: NonNegative = Field(
        0.0, description="Of the SFT loss on demonstrations, added to the policy's (PPO-ptx)."
    )
    ptx_batch_size: Count = Field(32, description="Demonstrations an optimiser step.")

    kl_early_stop: Positive | None = Field(
        0.1, description="Approximate KL a token at which a rollout's epochs end; null: never."
    )
    max_ratio: float | None = Field(
        10.0, gt=1.0, description="Minibatches whose mean ratio is beyond this are skipped."
    )
    kl_alarm: Positive = Field(25.0, description="Nats a response from which on it warns.")
    kl_stop: Positive | None = Field(50.0, description="Nats a response at which it stops.")

    gradient_checkpointing: bool = False
    gate: Literal["refuse", "warn"] = Field(
        "refuse", description="What to do when a check before PPO fails."
    )
    samples_per_run: Natural = Field(5, description="How often sample responses are kept.")
    save_rollouts: Count | None = Field(None, description="Rollouts between checkpoints.")

    eval_rollouts: Count | None = Field(
        10, description="Rollouts between looks at held-out prompts; null: nobody looks."
    )
    eval_prompts: int = Field(128, ge=2, description="Held-out prompts that are looked at.")
    early_stop: Literal["never", "warn", "stop"] = Field(
        "warn", description="What to do when the true reward has fallen below its best."
    )
    load_best_model_at_end: bool = Field(
        False, description="Let the result be `ppo/best` instead of the last policy."
    )
    alarms: AlarmsSection = Field(default_factory=AlarmsSection)

    @property
    def rollouts(self) -> int:
        """How many rollouts the episodes make; the last one is whole too."""
        return -(-self.episodes // self.rollout_batch_size)

    @property
    def uses_rm(self) -> bool:
        """Whether the run's reward model is one of the sources."""
        return any(source_kind(source.source) == "rm" for source in self.reward_sources)

    @property
    def has_critic(self) -> bool:
        """Whether a critic is learnt."""
        return self.advantage_estimator == "gae"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        complaints = [
            *self._batch_complaints(),
            *self._kl_complaints(),
            *self._critic_complaints(),
            *self._reward_complaints(),
            *self._length_complaints(),
            *self._watch_complaints(),
        ]
        if complaints:
            raise ValueError("; ".join(complaints))
        return self

    def _batch_complaints(self) -> Iterator[str]:
        whole = self.rollout_batch_size
        for name in ("minibatch_size", "responses_per_prompt"):
            if whole % getattr(self, name):
                yield (
                    f"rollout_batch_size ({whole}) must be a multiple of "
                    f"{name} ({getattr(self, name)})"
                )
        if self.episodes < whole:
            yield (f"episodes ({self.episodes}) must be at least one rollout_batch_size ({whole})")
        if self.ema_decay is not None and 1.0 / (1.0 - self.ema_decay) > self.rollouts:
            yield (
                f"ema_decay ({self.ema_decay:g}) averages over {1 / (1 - self.ema_decay):.0f} "
                f"rollouts, but there are only {self.rollouts}, so the result would still be the "
                "SFT policy; lower it or raise episodes"
            )

    def _kl_complaints(self) -> Iterator[str]:
        estimator = self.kl_estimator
        if self.kl_penalty == "reward" and estimator != "k1":
            yield (
                f"kl_estimator {estimator} in the reward has the wrong optimum: its penalty all "
                "but vanishes near the reference; use k1, or kl_penalty: loss"
            )
        if self.kl_penalty == "loss" and estimator == "k1":
            yield (
                "kl_estimator k1 in the loss has a gradient of mean 0, so it penalises nothing; "
                "use k2 or k3, or kl_penalty: reward"
            )
        if self.kl_controller is not None and self.beta == 0.0:
            yield "kl_controller multiplies beta, so beta must be above 0"
        if self.kl_stop is not None and self.kl_stop <= self.kl_alarm:
            yield f"kl_stop ({self.kl_stop}) must lie above kl_alarm ({self.kl_alarm})"

    def _critic_complaints(self) -> Iterator[str]:
        warmup = self.critic_warmup_rollouts
        if warmup and not self.has_critic:
            yield (
                f"critic_warmup_rollouts ({warmup}) needs a critic, and advantage_estimator "
                f"{self.advantage_estimator} has none"
            )
        if warmup >= self.rollouts:
            yield (
                f"critic_warmup_rollouts ({warmup}) must be fewer than the {self.rollouts} "
                "rollouts, or the policy would never learn"
            )
        if self.has_critic and self.critic_init == "reward_model" and not self.uses_rm:
            yield (
                "critic_init reward_model needs the reward model among reward_sources "
                f"(source: {RUN_RM}); without it use critic_init: sft"
            )

    def _reward_complaints(self) -> Iterator[str]:
        named = [source.source for source in self.reward_sources]
        for name in sorted({name for name in named if named.count(name) > 1}):
            yield f"reward_sources has {name} twice; give it one weight"
        if any(source.weight == 0.0 for source in self.reward_sources):
            yield "a weight of 0 in reward_sources asks for scores that count for nothing"
        if self.reward_rule != "weighted_sum":
            if len(named) < 2:
                yield f"reward_rule {self.reward_rule} needs at least two reward_sources"
            if any(source.weight != 1.0 for source in self.reward_sources):
                yield f"reward_rule {self.reward_rule} takes no weights; leave them out"

    def _length_complaints(self) -> Iterator[str]:
        if self.min_response_length is not None and self.missing_eos_score is None:
            yield "min_response_length gives shorter responses missing_eos_score, which is null"

    def _watch_complaints(self) -> Iterator[str]:
        if self.eval_rollouts is None and self.early_stop == "stop":
            yield (
                "early_stop: stop needs looks at held-out prompts, and eval_rollouts is null; "
                "give it a number"
            )
        if self.eval_rollouts is None and self.load_best_model_at_end:
            yield (
                "load_best_model_at_end needs looks at held-out prompts, and eval_rollouts is "
                "null; give it a number"
            )
