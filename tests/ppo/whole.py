"""Whole runs of PPO on real roles, watched from outside, and loops that share no code with them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from rlhfctl.models.roles import Roles
from rlhfctl.ppo.rollout import Rollout
from rlhfctl.ppo.settings import TrainedRole
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.run.monitor import NullMonitor
from tests.ppo.toy import bandit_settings
from tests.present import present

PROMPTS = [[300 + 7 * i + j for j in range(1 + i % 5)] for i in range(8)]
BETA, LAMBDA, MISSING = 0.1, 0.9, -0.75
EPISODES = len(PROMPTS)
TRAINED: tuple[TrainedRole, ...] = ("policy", "critic")


class Recorder(NullMonitor):
    """Keeps the metrics of every rollout."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        self.metrics.append(dict(metrics))


class Step(NamedTuple):
    """Input of an optimiser step: the gradient, after clipping; the weights before; its numbers."""

    gradient: torch.Tensor
    weights: list[torch.Tensor]
    numbers: dict[str, Any]


def trained(
    roles: Roles,
    demonstrations: Sequence[tuple[Sequence[int], Sequence[int]]] = (),
    **changes: Any,
) -> tuple[list[Rollout], dict[TrainedRole, list[Step]], list[dict[str, float]]]:
    """Run PPO; return its rollouts, what every optimiser got at each step, and the metrics."""
    numbers = {
        "episodes": EPISODES,
        "rollout_batch_size": EPISODES,
        "minibatch_size": EPISODES,
        "forward_batch_size": EPISODES,
        "epochs": 1,
        "learning_rate": 1e-30,
        "value_learning_rate": 1e-30,
        "lr_schedule": "constant",
        "max_grad_norm": 1e9,
        "beta": BETA,
        "gae_lambda": LAMBDA,
        "whiten_advantages": True,
        "missing_eos_score": MISSING,
        "samples_per_run": 99,
    }
    monitor = Recorder()
    rollouts: list[Rollout] = []
    caught: list[tuple[TrainedRole, Step]] = []
    weights = {role: list(roles.trainable(role).values()) for role in TRAINED}

    def catch(optimizer: torch.optim.Optimizer, _args: object, _kwargs: object) -> None:
        held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        for role in TRAINED:
            first = weights[role][0]
            if id(first) not in held or first.grad is None:
                continue
            (numbers,) = (
                group
                for group in optimizer.param_groups
                if any(weight is first for weight in group["params"])
            )
            held_weights = [weight.detach().clone() for weight in weights[role]]
            caught.append((role, Step(flat(weights[role]), held_weights, dict(numbers))))

    hook = register_optimizer_step_pre_hook(catch)
    try:
        PPOTrainer(
            roles,
            PROMPTS,
            bandit_settings(**(numbers | changes)),
            monitor,
            lambda _, rollout: rollouts.append(rollout),
            demonstrations=demonstrations,
        ).train()
    finally:
        hook.remove()
    steps = {role: [step for name, step in caught if name == role] for role in TRAINED}
    return rollouts, steps, monitor.metrics


def flat(weights: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat([present(weight.grad).flatten() for weight in weights]).clone()


def tokens_of(rollout: Rollout, row: int) -> tuple[torch.Tensor, int, int]:
    """Of one episode: ids, where its response starts and ends."""
    start = int(rollout.sequences.prompt_lengths[row])
    end = start + int(rollout.sequences.response_lengths[row])
    return rollout.sequences.ids[row, :end][None], start, end


def spoken(roles: Roles, rollout: Rollout, row: int) -> torch.Tensor:
    """Log-probabilities of an episode's response, by a pass of its own through the whole model."""
    ids, start, _ = tokens_of(rollout, row)
    roles.models.activate("policy", training=True)
    logits = roles.models.language_model("policy")(ids).logits[0, start - 1 : -1]
    table = (logits / roles.temperature).log_softmax(-1)
    log_probs: torch.Tensor = table.gather(1, ids[0, start:, None])[:, 0]
    return log_probs


def valued(roles: Roles, rollout: Rollout, row: int) -> torch.Tensor:
    """Values of an episode, by a pass of its own."""
    ids, start, _ = tokens_of(rollout, row)
    hidden = roles.models.activate("critic", training=True)(ids)[0][0, start - 1 : -1]
    values: torch.Tensor = roles.models.value_head(hidden)[:, 0]
    return values


def episode_gradients(
    roles: Roles,
    rollout: Rollout,
    value_clip: float | None = None,
    dual: float = math.inf,
    penalty: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> dict[TrainedRole, torch.Tensor]:
    """Each episode's gradient, not yet divided by any number of tokens, token by token.

    `penalty` is that of a token's log-probability and the reference's, where it is in the loss.
    """
    found: dict[TrainedRole, list[torch.Tensor]] = {role: [] for role in TRAINED}
    for row in range(EPISODES):
        for role, gradients in found.items():
            weights = list(roles.trainable(role).values())
            for weight in weights:
                weight.grad = None
            losses = []
            asked = spoken if role == "policy" else valued
            for t, now in enumerate(asked(roles, rollout, row)):
                if role == "policy":
                    ratio = (now - rollout.log_probs[row, t]).exp()
                    gain = rollout.advantages[row, t]
                    loss = -min(gain * ratio, gain * ratio.clamp(0.8, 1.2))
                    if gain < 0 and loss.item() > -dual * float(gain):
                        loss = loss.detach() * 0.0 * now
                    if penalty is not None:
                        loss = loss + BETA * penalty(now - rollout.reference_log_probs[row, t])
                    losses.append(loss)
                else:
                    old, wanted = present(rollout.values)[row, t], rollout.returns[row, t]
                    near = (
                        now if value_clip is None else now.clamp(old - value_clip, old + value_clip)
                    )
                    losses.append(0.5 * max((now - wanted) ** 2, (near - wanted) ** 2))
            torch.stack(losses).sum().backward()
            gradients.append(flat(weights))
            for weight in weights:
                weight.grad = None
    return {role: torch.stack(gradients) for role, gradients in found.items()}


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """To 1e-4 of the largest entry; measured: 2e-5, as fp32 ratios are 1 only to 8e-6 across passes."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
