"""The `ppo` section: every setting of the algorithm, named as in the papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from rlhfctl.recipe.alarms import AlarmsSection
from rlhfctl.recipe.base import Count, Natural, NonNegative, Positive, Section, Share
from rlhfctl.recipe.engine import VLLMSection
from rlhfctl.recipe.group_estimators import group_errors, with_published_whitening
from rlhfctl.recipe.reward_sources import RUN_RM, RewardSourceSection, source_kind

if TYPE_CHECKING:
    from collections.abc import Iterator


class KLControllerSection(Section):
    """Adaptive KL controller (Ziegler et al. 2019, section 2.2)."""

    target: Positive = Field(6.0, description="Target KL, in nats per response.")
    horizon: Positive = Field(
        10_000, description="Time constant of the adaptation of beta, in episodes."
    )


class PPOSection(Section):
    """Proximal policy optimisation against the reward model, with a learnt critic."""

    sft: str | None = Field(
        None, description="SFT checkpoint folder to start from; null uses the run's own."
    )
    rm: str | None = Field(None, description="Reward-model folder; null uses the run's own.")

    episodes: Count = Field(
        10_000,
        description="Episodes (one prompt with one response each) in the whole run, rounded up to "
        "whole rollouts.",
    )
    rollout_batch_size: Count = Field(128, description="Episodes per rollout, over all processes.")
    minibatch_size: Count = Field(32, description="Episodes per optimizer step.")
    forward_batch_size: Count = Field(
        16,
        description="Episodes per forward pass; changes memory and speed, not the update.",
    )
    epochs: Count = Field(2, description="Passes over each rollout.")
    responses_per_prompt: Count = Field(1, description="Responses sampled per prompt in a rollout.")
    engine: Literal["transformers", "vllm"] = Field(
        "transformers",
        description="Program that samples the rollouts; everything else is computed by transformers.",
    )
    vllm: VLLMSection = Field(
        default_factory=VLLMSection, description="Servers of `engine: vllm`, unused otherwise."
    )

    reward_sources: list[RewardSourceSection] = Field(
        default_factory=lambda: [RewardSourceSection()],
        min_length=1,
        description="Sources of the score, combined by `reward_rule`. Each has `source` (`rm`, a "
        "reward-model folder, `hub:ID`, `module:function` or an http address), `weight`, and keys "
        "of its kind.",
    )
    reward_rule: Literal["weighted_sum", "mean", "worst", "uncertainty", "weight_average"] = Field(
        "weighted_sum",
        description="Combination of several sources: `weighted_sum`; the ensemble rules of Coste et "
        "al. 2024, `mean`, `worst` (the minimum), `uncertainty` (mean minus penalty); or "
        "`weight_average`, one model with the mean of the reward models' weights (WARM, Ramé et al. "
        "2024), for `rm` and folders of `train-rm`.",
    )
    uncertainty_penalty: NonNegative = Field(
        0.1,
        description="Coefficient of the variance over sources in `reward_rule: uncertainty`.",
    )

    learning_rate: Positive = Field(1e-5, description="Peak learning rate of the policy.")
    value_learning_rate: Positive = Field(5e-5, description="Peak learning rate of the critic.")
    warmup_rollouts: Natural = Field(
        10,
        description="Rollouts in which both learning rates rise from 0.1 of their peak; half of the "
        "run at most.",
    )
    lr_schedule: Literal["linear", "constant"] = Field(
        "linear", description="Learning rates after the warm-up: linear to 0, or constant."
    )
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"] = Field(
        "adamw_torch", description="Optimizer, as named in transformers; the 8-bit ones need CUDA."
    )
    adam_beta1: float = Field(0.9, ge=0.0, lt=1.0, description="Decay rate of Adam's first moment.")
    adam_beta2: float = Field(
        0.95, ge=0.0, lt=1.0, description="Decay rate of Adam's second moment."
    )
    adam_epsilon: Positive = Field(1e-8, description="Term added to Adam's denominator.")
    weight_decay: NonNegative = Field(0.0, description="Weight decay of AdamW.")
    max_grad_norm: Positive = Field(
        1.0,
        description="Norm that gradients are clipped to, for policy and critic separately; for both "
        "together with `critic: head`.",
    )

    ema_decay: float | None = Field(
        None,
        gt=0.0,
        lt=1.0,
        description="Decay per rollout of an exponential moving average of the policy's weights, "
        "which becomes the result. null keeps the last policy.",
    )

    beta: NonNegative = Field(0.05, description="Coefficient of the KL penalty.")
    kl_penalty: Literal["reward", "loss"] = Field(
        "reward", description="Place of the KL penalty: each token's reward, or the loss."
    )
    kl_estimator: Literal["k1", "k2", "k3"] = Field(
        "k1",
        description="Estimator of the penalised KL: k1 with `kl_penalty: reward`; k2 for "
        "KL(policy || reference) or k3 for KL(reference || policy) with `kl_penalty: loss`.",
    )
    kl_controller: KLControllerSection | None = Field(
        None, description="Adaptive controller that starts from `beta`; null keeps beta constant."
    )
    advantage_estimator: Literal["gae", "rloo", "grpo", "batch_mean"] = Field(
        "gae",
        description="`gae` uses the critic; the others train none. `rloo` and `grpo` compare the "
        "responses to one prompt (`responses_per_prompt`, at least 2): minus the mean of the "
        "others, or normalised by mean and standard deviation. `batch_mean` is REINFORCE with the "
        "mean return of the batch as baseline.",
    )
    critic: Literal["adapter", "head"] = Field(
        "adapter",
        description="`adapter`: the critic is an adapter of its own (with `lora: null` a model of its "
        "own). `head`: it is a value head of zeros on the policy's last hidden states (Ziegler et "
        "al. 2019), so an update needs one training pass instead of two.",
    )
    critic_init: Literal["reward_model", "sft"] = Field(
        "reward_model",
        description="Initial weights of `critic: adapter`: the reward model, or SFT with a value head "
        "of zeros, which is the default where `rm` is not among `reward_sources`.",
    )
    vf_coef: Positive = Field(
        0.1,
        description="Coefficient of the value loss in the policy's loss, with `critic: head` only.",
    )
    critic_warmup_rollouts: Natural = Field(
        0,
        description="First rollouts in which only the critic is trained; of `critic: head`, the head.",
    )
    gamma: Share = Field(1.0, description="Discount factor of rewards, per token.")
    gae_lambda: Share = Field(
        0.95, description="Lambda of generalised advantage estimation (Schulman et al. 2016)."
    )
    clip_range: Positive = Field(
        0.2, description="Epsilon of the clipped objective; ratios are clipped to 1 +- epsilon."
    )
    dual_clip: float | None = Field(
        None,
        gt=1.0,
        description="Upper bound on the ratio where the advantage is negative; null omits it.",
    )
    value_clip_range: Positive | None = Field(
        0.2,
        description="Largest change of a value in the clipped value loss, in units of the normalised "
        "score; null disables value clipping.",
    )
    whiten_advantages: bool = Field(
        True,
        description="Normalise advantages to mean 0 and variance 1 over the rollout's response "
        "tokens. The default is false with `advantage_estimator: rloo` and `grpo`, whose papers do "
        "not.",
    )
    whiten_rewards: bool = Field(
        False,
        description="Divide per-token rewards by their standard deviation over the rollout; the "
        "mean is kept.",
    )
    score_clip: Positive | None = Field(
        5.0,
        description="Bound on the absolute normalised score, in standard deviations; null disables "
        "clipping.",
    )
    score_normalization: Literal["sft", "running"] = Field(
        "sft",
        description="Mean and standard deviation that scores are normalised by: `sft`, those of SFT "
        "responses, stored with the reward model; `running`, those of the scores so far.",
    )
    missing_eos_score: float | None = Field(
        -1.0,
        description="Normalised score of a response that did not end within "
        "`generation.max_new_tokens`; null keeps its own score.",
    )

    min_response_length: Count | None = Field(
        None,
        description="Shortest response that keeps its score, in tokens; a shorter one gets "
        "`missing_eos_score`. null sets no limit.",
    )

    ptx_coefficient: NonNegative = Field(
        0.0,
        description="Coefficient of the SFT loss on demonstrations in the policy's loss (PPO-ptx, "
        "Ouyang et al. 2022); 0 disables it.",
    )
    ptx_batch_size: Count = Field(
        32, description="Demonstrations per optimizer step, with `ptx_coefficient` above 0."
    )

    kl_early_stop: Positive | None = Field(
        0.1,
        description="Approximate KL between updated and sampling policy, in nats per token, that "
        "ends the epochs of a rollout; null never does.",
    )
    max_ratio: float | None = Field(
        10.0,
        gt=1.0,
        description="Minibatches with a mean probability ratio above this are skipped; null skips "
        "none.",
    )
    kl_alarm: Positive = Field(
        25.0, description="KL to the reference, in nats per response, that raises a warning."
    )
    kl_stop: Positive | None = Field(
        50.0,
        description="KL to the reference, in nats per response, that stops the run; null never "
        "stops it.",
    )

    gradient_checkpointing: bool = Field(
        False,
        description="Recompute activations in the backward pass: less memory, more time.",
    )
    gate: Literal["refuse", "warn"] = Field(
        "refuse",
        description="Action when a check before PPO fails, such as a reward model no better than "
        "always preferring the longer, or always the shorter, response: end with exit code 6, or "
        "warn and continue.",
    )
    samples_per_run: Natural = Field(
        5, description="Rollouts, spread over the run, whose sample responses are stored."
    )
    save_minutes: Positive | None = Field(
        10.0,
        description="Most minutes of training that a kill may lose: checkpoints to resume from are "
        "saved that often, also within a rollout's update. With null only `save_rollouts` and a "
        "signal to stop save any.",
    )
    save_rollouts: Count | None = Field(
        None, description="Rollouts between further checkpoints; null saves none."
    )
    keep_last: int = Field(
        2, ge=2, description="Newest checkpoints to keep; older ones are removed after a save."
    )

    eval_rollouts: Count | None = Field(
        10,
        description="Rollouts between held-out evaluations; null disables held-out evaluation.",
    )
    eval_prompts: int = Field(128, ge=2, description="Prompts per held-out evaluation.")
    early_stop: Literal["never", "warn", "stop"] = Field(
        "warn",
        description="Action when the true reward has fallen significantly below its best value: "
        "ignore it, warn, or stop the run.",
    )
    load_best_model_at_end: bool = Field(
        False,
        description="Make the policy with the best true reward the result, instead of the last one.",
    )
    alarms: AlarmsSection = Field(
        default_factory=AlarmsSection, description="Thresholds of the held-out evaluations' alarms."
    )
    on_alarm: Literal["warn", "raise_beta", "rollback", "stop"] = Field(
        "warn",
        description="Action on an alarm. `warn`: show it. `raise_beta`: multiply beta. `rollback`: "
        "restore policy and critic of the last evaluation without an alarm, and multiply beta. "
        "`stop`: end the stage with its best policy (without a true reward: that of the last "
        "evaluation without an alarm).",
    )
    alarm_clear_evaluations: Count = Field(
        2,
        description="Evaluations in a row without an alarm that has acted, after which it may act "
        "again; a rollback lets all act again.",
    )
    alarm_beta_factor: float = Field(
        2.0, gt=1.0, description="Factor of beta in `on_alarm: raise_beta` and `rollback`."
    )
    alarm_rollbacks: Count = Field(
        3,
        description="Most rollbacks in a run with `on_alarm: rollback`; the next alarm ends the "
        "stage as `stop` does.",
    )

    @property
    def rollouts(self) -> int:
        """Number of rollouts; the last one is whole, too."""
        return -(-self.episodes // self.rollout_batch_size)

    @property
    def uses_rm(self) -> bool:
        """True if the run's reward model is among the reward sources."""
        return any(source_kind(source.source) == "rm" for source in self.reward_sources)

    @property
    def has_critic(self) -> bool:
        """True if a critic is trained."""
        return self.advantage_estimator == "gae"

    @property
    def has_own_critic(self) -> bool:
        """True if a critic is trained that shares no trained weight with the policy."""
        return self.has_critic and self.critic == "adapter"

    @property
    def critic_start(self) -> Literal["reward_model", "sft", "head"] | None:
        """Initialisation of the critic; None without a critic."""
        if not self.has_critic:
            return None
        return "head" if self.critic == "head" else self.critic_init

    @model_validator(mode="before")
    @classmethod
    def _default_critic(cls, values: Any) -> Any:
        """Start the critic from SFT where no reward model of ours gives scores."""
        if not isinstance(values, dict) or "critic_init" in values:
            return values
        sources = values.get("reward_sources")
        if not isinstance(sources, list) or not sources:
            return values
        names = [
            source.get("source", RUN_RM) if isinstance(source, dict) else source.source
            for source in sources
            if isinstance(source, dict | RewardSourceSection)
        ]
        return values if RUN_RM in names or not names else values | {"critic_init": "sft"}

    @model_validator(mode="before")
    @classmethod
    def _default_whitening(cls, values: Any) -> Any:
        """Leave the advantages of a group of responses as their papers define them."""
        return with_published_whitening(values)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = [
            *self._batch_errors(),
            *self._kl_errors(),
            *self._critic_errors(),
            *group_errors(self.advantage_estimator, self.responses_per_prompt, self.gamma),
            *self._reward_errors(),
            *self._length_errors(),
            *self._held_out_errors(),
        ]
        if errors:
            raise ValueError("; ".join(errors))
        return self

    def _batch_errors(self) -> Iterator[str]:
        rollout = self.rollout_batch_size
        for name in ("minibatch_size", "responses_per_prompt"):
            if rollout % getattr(self, name):
                yield (
                    f"rollout_batch_size ({rollout}) must be a multiple of "
                    f"{name} ({getattr(self, name)})"
                )
        if self.episodes < rollout:
            yield (
                f"episodes ({self.episodes}) must be at least one rollout_batch_size ({rollout})"
            )
        if self.ema_decay is not None and 1.0 / (1.0 - self.ema_decay) > self.rollouts:
            yield (
                f"ema_decay ({self.ema_decay:g}) averages over {1 / (1 - self.ema_decay):.0f} "
                f"rollouts, but there are only {self.rollouts}, so the result would still be the "
                "SFT policy; lower it or raise episodes"
            )

    def _kl_errors(self) -> Iterator[str]:
        estimator = self.kl_estimator
        if self.kl_penalty == "reward" and estimator != "k1":
            yield (
                f"kl_estimator {estimator} in the reward has the wrong optimum: its penalty nearly "
                "vanishes near the reference; use k1, or kl_penalty: loss"
            )
        if self.kl_penalty == "loss" and estimator == "k1":
            yield (
                "kl_estimator k1 in the loss has a gradient with mean 0, so it penalises nothing; "
                "use k2 or k3, or kl_penalty: reward"
            )
        if self.kl_controller is not None and self.beta == 0.0:
            yield "kl_controller multiplies beta, so beta must be above 0"
        if self.kl_stop is not None and self.kl_stop <= self.kl_alarm:
            yield f"kl_stop ({self.kl_stop}) must be above kl_alarm ({self.kl_alarm})"

    def _critic_errors(self) -> Iterator[str]:
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
        if self.critic_start == "reward_model" and not self.uses_rm:
            yield (
                "critic_init reward_model needs the reward model among reward_sources "
                f"(source: {RUN_RM}); without it use critic_init: sft"
            )

    def _reward_errors(self) -> Iterator[str]:
        names = [source.source for source in self.reward_sources]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"reward_sources has {name} twice; list it once"
        if any(source.weight == 0.0 for source in self.reward_sources):
            yield "a weight of 0 in reward_sources computes scores that are not used; remove the source"
        if self.reward_rule != "weighted_sum":
            if len(names) < 2:
                yield f"reward_rule {self.reward_rule} needs at least two reward_sources"
            if self.reward_rule == "weight_average" and (
                not self.uses_rm
                or not {source.kind for source in self.reward_sources} <= {"rm", "folder"}
            ):
                yield (
                    "reward_rule weight_average averages reward models of train-rm: list rm and "
                    "folders of others only"
                )
            if any(source.weight != 1.0 for source in self.reward_sources):
                yield f"reward_rule {self.reward_rule} takes no weights; remove them"

    def _length_errors(self) -> Iterator[str]:
        if self.min_response_length is not None and self.missing_eos_score is None:
            yield "min_response_length needs missing_eos_score, which is null; set it to a number"

    def _held_out_errors(self) -> Iterator[str]:
        if self.eval_rollouts is None and self.early_stop == "stop":
            yield (
                "early_stop: stop needs held-out evaluations, and eval_rollouts is null; "
                "set it to a number"
            )
        if self.eval_rollouts is None and self.load_best_model_at_end:
            yield (
                "load_best_model_at_end needs held-out evaluations, and eval_rollouts is "
                "null; set it to a number"
            )
        if self.eval_rollouts is None and self.on_alarm != "warn":
            yield (
                f"on_alarm: {self.on_alarm} needs held-out evaluations, and eval_rollouts is null; "
                "set it to a number"
            )
        if self.on_alarm in {"raise_beta", "rollback"} and self.beta == 0.0:
            yield f"on_alarm: {self.on_alarm} multiplies beta, so beta must be above 0"
