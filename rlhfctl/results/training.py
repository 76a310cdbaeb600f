"""Results of the training stages, and a line of `ppo/held_out.jsonl`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rlhfctl.results.estimate import Estimate  # noqa: TC001 - for get_type_hints


@dataclass(frozen=True)
class SFTResult:
    """Metrics of SFT: losses in nats per response token, before and after training."""

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


@dataclass(frozen=True)
class Peak:
    """Peak of a fitted curve; `observed` if it lies within the measured distances."""

    distance: Estimate
    value: Estimate
    observed: bool


@dataclass(frozen=True)
class OverOptimisationFit:
    """Fit of reward against sqrt(KL); `curve` holds [distance, value] points."""

    form: Literal["rl", "best_of_n"]
    alpha: Estimate
    beta: Estimate
    curve: list[list[float]]
    baseline: float
    points: int
    peak: Peak | None = None
    r_squared: float | None = None


@dataclass(frozen=True)
class AlarmRecord:
    """An alarm of the held-out evaluations, raised after `step` episodes."""

    name: str
    step: int
    value: float
    threshold: float
    message: str


@dataclass(frozen=True)
class BestEvaluation:
    """Held-out evaluation with the highest true reward."""

    step: int
    rollout: int
    kl: float
    true_reward: Estimate


@dataclass(frozen=True)
class OverOptimisation:
    """Summary of the held-out evaluations; the last four fields need a true reward."""

    evaluations: int
    stopped_early: bool
    alarms: list[AlarmRecord] = field(default_factory=list)
    fits: dict[str, OverOptimisationFit] = field(default_factory=dict)
    true_reward: str | None = None
    best: BestEvaluation | None = None
    fallen: bool | None = None
    last_below_best: Estimate | None = None


@dataclass(frozen=True)
class HeldOutLine:
    """One held-out evaluation; `per_prompt` holds every prompt's value of each metric."""

    step: int
    rollout: int
    kl: Estimate
    sqrt_kl: float
    proxy: Estimate
    length: Estimate
    eos_share: float
    repetition: Estimate
    certainty: Estimate
    hedging: Estimate
    entropy: Estimate
    per_prompt: dict[str, list[float]]
    true_reward: Estimate | None = None
    score_disagreement: Estimate | None = None
    out_of_range_share: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
