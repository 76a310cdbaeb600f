"""Results of the training stages, and a line of `ppo/held_out.jsonl`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self

from rlhfctl.results.estimate import Estimate, GroupAccuracy


@dataclass(frozen=True)
class SFTResult:
    """Metrics of SFT: losses in nats per response token, before and after training.

    `best_step` is the number of steps after which `load_best_model_at_end` took the result,
    `pass_size` the rows per forward pass that `auto_batch` found, `packs` the number of packed
    sequences, and `fill_ratio` the share of their tokens that are of rows.
    """

    eval_loss_before: float
    eval_loss: float
    token_accuracy_before: float
    token_accuracy: float
    train_loss: float
    train_rows: int
    held_out_rows: int
    steps: int
    trainable_parameters: int
    tokens_per_second: float
    best_step: int | None = None
    pass_size: int | None = None
    packs: int | None = None
    fill_ratio: float | None = None


@dataclass(frozen=True)
class RewardModelResult:
    """Metrics of a reward model: `rm/metrics.json`, and those of the stage.

    Attributes:
        accuracy: Share of held-out comparisons in which the chosen response scores higher.
        length_accuracy: The same of always preferring the longer response. Ties count one half, so
            always preferring the shorter one has 1 minus that.
        pairs: Held-out comparisons.
        mean_margin: Mean raw score of chosen minus rejected.
        score_min: Lowest raw score on held-out comparisons.
        score_max: Highest raw score on held-out comparisons.
        train_loss: Mean loss over training.
        train_rows: Comparisons trained on.
        steps: Optimiser steps.
        best_step: Steps after which `load_best_model_at_end` took the result.
        pass_size: Pairs per forward pass that `auto_batch` found.
        score_mean: Mean raw score of SFT's responses; None until they are scored.
        score_std: Standard deviation of the same.
        sft_eos_share: Share of SFT's sampled responses that ended.
        per_annotator: Accuracy on each annotator's held-out comparisons.
        gold_accuracy: Accuracy on held-out pairs in gold order; embedded world only.
        gold_length_accuracy: The same of always preferring the longer response.
        gold_pairs: Pairs in gold order.
        judge: Metrics of the held-out reward model.
    """

    accuracy: Estimate
    length_accuracy: Estimate
    pairs: int
    mean_margin: float
    score_min: float
    score_max: float
    train_loss: float
    train_rows: int
    steps: int
    best_step: int | None = None
    pass_size: int | None = None
    score_mean: float | None = None
    score_std: float | None = None
    sft_eos_share: float | None = None
    per_annotator: dict[str, GroupAccuracy] | None = None
    gold_accuracy: Estimate | None = None
    gold_length_accuracy: Estimate | None = None
    gold_pairs: int | None = None
    judge: RewardModelResult | None = None

    @property
    def length_baseline(self) -> LengthBaseline:
        """The more accurate of the two baselines that know a response's length only."""
        return LengthBaseline.of(self.length_accuracy)


@dataclass(frozen=True)
class DPOResult:
    """Metrics of DPO; its implicit reward is beta times the policy's log-ratio to SFT.

    Attributes:
        accuracy: Share of held-out comparisons whose chosen response has the higher reward.
        mean_margin: Mean reward of chosen minus rejected, on held-out comparisons.
        chosen_reward: Mean reward of chosen responses on the same.
        eval_loss: Loss on held-out comparisons.
        pairs: Held-out comparisons.
        train_loss: Mean loss over training.
        train_rows: Comparisons trained on.
        steps: Optimiser steps.
        best_step: Steps after which `load_best_model_at_end` took the result.
        pass_size: Pairs per forward pass that `auto_batch` found.
    """

    accuracy: Estimate
    mean_margin: float
    chosen_reward: float
    eval_loss: float
    pairs: int
    train_loss: float
    train_rows: int
    steps: int
    best_step: int | None = None
    pass_size: int | None = None


@dataclass(frozen=True)
class LengthBaseline:
    """Always preferring the `longer` or the `shorter` response, whichever is right more often.

    A reward model that is no better may have learned length alone, in either direction.
    """

    preferred: Literal["longer", "shorter"]
    accuracy: Estimate

    @classmethod
    def of(cls, longer_wins: Estimate) -> Self:
        """Return the better baseline, given the accuracy of always preferring the longer one."""
        low, high = longer_wins.low, longer_wins.high
        if not longer_wins.value < 0.5:
            return cls("longer", longer_wins)
        shorter_wins = Estimate(
            1 - longer_wins.value,
            None if high is None else 1 - high,
            None if low is None else 1 - low,
        )
        return cls("shorter", shorter_wins)

    def __str__(self) -> str:
        """Return the baseline in words."""
        return f"always prefer the {self.preferred} response"


@dataclass(frozen=True)
class Peak:
    """Maximum of a fitted curve; `observed` if its distance lies within the run."""

    distance: Estimate
    value: Estimate
    observed: bool


@dataclass(frozen=True)
class OverOptimisationFit:
    """Fit of gain against sqrt(KL), with intervals.

    Attributes:
        form: Curve of Gao et al. 2023.
        alpha: Coefficient of the linear term.
        beta: Coefficient of the falling term.
        curve: [points, 2] distance and gain from 0 to the largest distance, for plotting.
        baseline: Mean score of the first evaluation; gains are relative to it.
        points: Number of fitted evaluations.
        peak: Maximum of the curve; None if it cannot be identified.
        r_squared: Coefficient of determination.
    """

    form: Literal["rl", "best_of_n"]
    alpha: Estimate
    beta: Estimate
    curve: list[list[float]]
    baseline: float
    points: int
    peak: Peak | None = field(default=None, metadata={"null": True})
    r_squared: float | None = field(default=None, metadata={"null": True})


@dataclass(frozen=True)
class Alarm:
    """An alarm of the held-out evaluations, raised after `step` episodes."""

    name: str
    step: int
    value: float
    threshold: float
    message: str


@dataclass(frozen=True)
class AlarmAct:
    """Act of `ppo.on_alarm` at a held-out evaluation.

    Attributes:
        kind: Raised beta, rolled back to an earlier policy, or stopped PPO.
        alarms: Names of the alarms that it acted on.
        step: Episodes before it, discarded ones included.
        beta_before: KL coefficient before it.
        beta: KL coefficient after it.
        restored_step: Episodes before the policy that was restored; None if none was.
    """

    kind: Literal["raise_beta", "rollback", "stop"]
    alarms: list[str]
    step: int
    beta_before: float
    beta: float
    restored_step: int | None = None


@dataclass(frozen=True)
class BestEvaluation:
    """Held-out evaluation with the highest true reward."""

    step: int
    rollout: int
    kl: float
    true_reward: Estimate


@dataclass(frozen=True)
class Change:
    """Mean paired change of the true reward."""

    change: Estimate


@dataclass(frozen=True)
class OverOptimisation:
    """Summary of the held-out evaluations.

    Attributes:
        evaluations: Number of evaluations.
        stopped_early: Whether PPO stopped because the true reward fell.
        alarms: Alarms at the evaluations that raised them first.
        fits: Fitted curves by score.
        true_reward: Its kind; None without one, and then the following fields are None, too.
        best: Evaluation with the highest true reward.
        fallen: Whether the true reward fell significantly from its best.
        last_below_best: Change of the true reward from its best to the last evaluation.
        acts: What was done on alarms; None with `ppo.on_alarm: warn`.
    """

    evaluations: int
    stopped_early: bool
    alarms: list[Alarm]
    fits: dict[str, OverOptimisationFit]
    true_reward: str | None = None
    best: BestEvaluation | None = None
    fallen: bool | None = None
    last_below_best: Change | None = None
    acts: list[AlarmAct] | None = None


@dataclass(frozen=True, kw_only=True)
class HeldOutLine:
    """One held-out evaluation: a line of `ppo/held_out.jsonl`.

    Attributes:
        proxy: Mean score by the recipe's reward sources.
        objective_score: The same by the rules of PPO's objective.
        per_prompt: [prompts] values of each metric.
    """

    step: int
    rollout: int
    kl: Estimate
    proxy: Estimate
    objective_score: Estimate | None = None
    true_reward: Estimate | None = None
    length: Estimate
    repetition: Estimate
    certainty: Estimate
    hedging: Estimate
    entropy: Estimate
    eos_share: float
    score_disagreement: float | None = None
    out_of_range_share: float | None = None
    state_distance: float | None = None
    saturated_share: float | None = None
    sqrt_kl: float
    per_prompt: dict[str, list[float]] = field(metadata={"key": "each"})


@dataclass(frozen=True)
class RewardProbe:
    """Responses scored at the end of training, to check a reloaded reward model: `probe.json`.

    Attributes:
        ids: [responses] token ids of prompt and response.
        scores: [responses] raw scores.
    """

    ids: list[list[int]]
    scores: list[float]


@dataclass(frozen=True)
class ResultEvaluation:
    """Held-out evaluation of the policy that PPO returns, after `step` episodes.

    The last rollout's metrics are of the policy before its last update, on training prompts.
    """

    step: int
    kl: Estimate
    proxy: Estimate
    length: Estimate
    eos_share: float
    objective_score: Estimate | None = None
    true_reward: Estimate | None = None


@dataclass(frozen=True)
class PPOResult:
    """Metrics of PPO.

    Attributes:
        rollouts: Rollouts that the policy was trained on.
        episodes: Episodes that the policy was trained on.
        skipped_minibatches: Minibatches rejected in the whole run.
        kl_early_stops: Rollouts whose epochs ended early.
        pass_size: Episodes per forward pass that `auto_batch` found.
        gate: Detail of each preflight check.
        last_rollout: Metrics of the last rollout.
        over_optimisation: Summary of the held-out evaluations; None without any.
        result: Held-out evaluation of the result; None without any.
    """

    rollouts: int
    episodes: int
    skipped_minibatches: int
    kl_early_stops: int
    gate: dict[str, str]
    last_rollout: dict[str, float] = field(metadata={"inline": True})
    over_optimisation: OverOptimisation | None = None
    result: ResultEvaluation | None = None
    pass_size: int | None = None
