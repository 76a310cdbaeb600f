"""A five-armed bandit as the four roles: one response token, an exact optimum; and a death."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from rlhfctl.maths.log_probs import TokenLogProbs
from rlhfctl.maths.sampling import Seed, inverse_cdf, uniform_numbers
from rlhfctl.maths.sequences import Sequences
from rlhfctl.ppo.settings import PPOSettings, TrainedRole
from rlhfctl.run.monitor import NullMonitor

REFERENCE = torch.tensor([0.4, 0.25, 0.2, 0.1, 0.05])
SCORES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0])


def optimum(beta: float) -> torch.Tensor:
    """pi* proportional to ref * exp(score / beta), the policy that the penalised reward asks for."""
    weights = REFERENCE * torch.exp(SCORES / beta)
    return weights / weights.sum()


BANDIT_SETTINGS = PPOSettings(
    episodes=256 * 400,
    rollout_batch_size=256,
    minibatch_size=256,
    forward_batch_size=256,
    epochs=4,
    responses_per_prompt=1,
    learning_rate=0.03,
    value_learning_rate=0.03,
    warmup_rollouts=0,
    lr_schedule="linear",
    optim="adamw_torch",
    adam_beta1=0.9,
    adam_beta2=0.95,
    adam_epsilon=1e-8,
    weight_decay=0.0,
    max_grad_norm=1.0,
    ema_decay=None,
    beta=0.5,
    kl_penalty="reward",
    kl_estimator="k1",
    kl_target=None,
    kl_horizon=10_000.0,
    advantage_estimator="gae",
    critic_warmup_rollouts=0,
    gamma=1.0,
    gae_lambda=0.95,
    clip_range=0.2,
    dual_clip=None,
    value_clip_range=0.2,
    whiten_advantages=False,
    whiten_rewards=False,
    score_clip=None,
    score_normalization="sft",
    missing_eos_score=None,
    min_response_length=None,
    ptx_coefficient=0.0,
    ptx_batch_size=32,
    kl_early_stop=None,
    max_ratio=10.0,
    kl_alarm=25.0,
    kl_stop=50.0,
    samples_per_run=0,
    save_rollouts=None,
    eval_rollouts=None,
    seed=0,
)


def bandit_settings(**changes: Any) -> PPOSettings:
    """Return `BANDIT_SETTINGS` with other values for some of its fields."""
    return replace(BANDIT_SETTINGS, **changes)


class Bandit:
    """Every prompt is one token, every response one arm."""

    pad_token_id = 9
    device = torch.device("cpu")
    computes_in_float16 = False

    def __init__(self, score: torch.Tensor | None = None) -> None:
        self.logits = torch.nn.Parameter(REFERENCE.log().clone())
        self.value = torch.nn.Parameter(torch.zeros(1))
        self.score = SCORES if score is None else score

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[Seed]) -> list[list[int]]:
        numbers = uniform_numbers(seeds, 1)[:, 0]
        logits = self.logits.detach().expand(len(prompts), -1)
        return [[int(arm)] for arm in inverse_cdf(logits, numbers, 1.0)]

    def ended(self, response: Sequence[int]) -> bool:
        return True

    def log_probs(
        self,
        role: Literal["policy", "reference"],
        batch: Sequences,
        *,
        training: bool = False,
        temperature: float | None = None,
    ) -> TokenLogProbs:
        with torch.set_grad_enabled(training):
            table = self.logits.log_softmax(0) if role == "policy" else REFERENCE.log()
            entropy = -(table.exp() * table).sum().expand(batch.mask.shape).detach()
            return TokenLogProbs(table[batch.responses], entropy)

    def values(self, batch: Sequences, *, training: bool = False) -> torch.Tensor:
        with torch.set_grad_enabled(training):
            return self.value.expand(len(batch), 1)

    def log_probs_and_values(
        self, batch: Sequences, *, training: bool = False
    ) -> tuple[TokenLogProbs, torch.Tensor]:
        log_probs = self.log_probs("policy", batch, training=training)
        return log_probs, self.values(batch, training=training)

    def scores(self, batch: Sequences) -> torch.Tensor:
        return self.score[batch.responses[:, 0]]

    def trainable(self, role: TrainedRole) -> dict[str, torch.nn.Parameter]:
        return {"logits": self.logits} if role == "policy" else {"value": self.value}


class HeadBandit(Bandit):
    """Its critic is a head on the policy: the value is a multiple of the sum of the logits."""

    def log_probs_and_values(
        self, batch: Sequences, *, training: bool = False
    ) -> tuple[TokenLogProbs, torch.Tensor]:
        log_probs = self.log_probs("policy", batch, training=training)
        with torch.set_grad_enabled(training):
            return log_probs, self._of(self.logits, batch)

    def values(self, batch: Sequences, *, training: bool = False) -> torch.Tensor:
        with torch.set_grad_enabled(training):
            return self._of(self.logits.detach(), batch)

    def _of(self, logits: torch.Tensor, batch: Sequences) -> torch.Tensor:
        return (self.value * logits.sum()).expand(len(batch), 1)


class Cut(Exception):
    """The process dies."""


class Dying(NullMonitor):
    """Raises `Cut` at the step after the first `after` steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        self.left -= 1
        if self.left < 0:
            raise Cut
