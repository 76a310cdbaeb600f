"""Peak memory of PPO and of the evaluation, with their roles over one base or in models of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rlhfctl.plan.generation import sample
from rlhfctl.plan.losses import critic_values, policy_log_probs, policy_log_probs_and_values
from rlhfctl.plan.optimizers import state_bytes, step_bytes
from rlhfctl.plan.passes import drop_gradients, hold_model, train

if TYPE_CHECKING:
    from torch._subclasses.fake_tensor import FakeTensorMode

    from rlhfctl.plan.live_bytes import LiveBytes, Split
    from rlhfctl.plan.shadow import Shadow
    from rlhfctl.plan.stage_memory import Planned

_ROLLOUT_WORDS = 12
"""4-byte words per episode and response token that a rollout holds: log-probabilities of policy and
reference, entropy, values, rewards, advantages, returns, ids (8 bytes) and what is made of them."""


@dataclass(frozen=True)
class _Roles:
    """The roles' models.

    Attributes:
        policy: Language model with an adapter per role, or the policy's own model.
        critic: The same model, or the critic's own; None without a critic of its own.
        value_head: Head of the critic, on the policy without a critic of its own.
        share_base: Whether each role is an adapter of the same model.
    """

    policy: Shadow
    critic: Shadow | None
    value_head: torch.nn.Linear
    share_base: bool

    def activate(self, role: str) -> None:
        """Train a role, and no other that shares its base."""
        if self.share_base:
            self.policy.model.set_adapter(role, inference_mode=False)


def _role_names(planned: Planned, *, critic: bool) -> tuple[str, ...]:
    ppo = planned.recipe.ppo
    rms = ("reward",) if ppo.uses_rm else ()
    judge = ("reward_1",) if planned.recipe.reward_model.judge_share else ()
    return ("policy", "reference", *rms, *judge, *(("critic",) if critic else ()))


def _load(
    planned: Planned, live: LiveBytes, mode: FakeTensorMode, layers: int, *, critic: bool
) -> _Roles:
    """Make the models of the roles and count them."""
    names = _role_names(planned, critic=critic)
    hidden = planned.architecture.config.get_text_config().hidden_size
    head = torch.nn.Linear(hidden, 1)
    if planned.recipe.lora is not None:
        shadow = planned.shadow(mode, layers, roles=names, dropout=False)
        hold_model(shadow, live)
        shadow.model.requires_grad_(requires_grad=False)
        return _Roles(shadow, shadow if critic else None, head, share_base=True)
    policy = planned.shadow(mode, layers)
    hold_model(policy, live)
    scorer = planned.shadow(mode, layers, scorer=True)
    live.add("weights", _bytes(policy))
    others = len(names) - 2 - critic
    live.add("weights", others * _bytes(scorer))
    if critic:
        hold_model(scorer, live)
    return _Roles(policy, scorer if critic else None, head, share_base=False)


def _bytes(shadow: Shadow) -> int:
    return sum(weight.nbytes for weight in shadow.model.parameters())


def ppo_update_peak(planned: Planned) -> Split:
    """Return the peak of PPO's passes over the longest episodes, and of its optimizers."""
    section = planned.recipe.ppo

    def step(live: LiveBytes, mode: FakeTensorMode, layers: int) -> None:
        roles = _load(planned, live, mode, layers, critic=section.has_own_critic)
        passes = [("policy", roles.policy)]
        if roles.critic is not None:
            passes.append(("critic", roles.critic))
        _count_rollout(planned, live)
        trained = []
        for role, shadow in passes:
            roles.activate(role)
            trained += shadow.trained()
            live.add("optimizer", state_bytes(section.optim, shadow.trained()))
            if section.gradient_checkpointing:
                shadow.base.gradient_checkpointing_enable({"use_reentrant": False})
            shadow.model.train(section.gradient_checkpointing)
        episodes = min(section.forward_batch_size, section.minibatch_size)
        for role, shadow in passes:
            roles.activate(role)
            live.enter(f"{role} pass")

            def loss(role: str = role, shadow: Shadow = shadow) -> torch.Tensor:
                with planned.ppo_autocast():
                    if role == "policy":
                        return _policy_outputs(
                            planned, roles, live, episodes, with_entropy=False
                        ).sum()
                    return critic_values(
                        shadow.decoder, roles.value_head, live, episodes, planned.lengths
                    ).sum()

            train(shadow, live, loss, accumulates=section.minibatch_size > episodes)
        live.enter("step")
        live.add("optimizer", step_bytes(section.optim, trained, on_gpu=planned.on_gpu))
        for _, shadow in passes:
            drop_gradients(shadow)

    return planned.peak(step)


def _policy_outputs(
    planned: Planned, roles: _Roles, live: LiveBytes, episodes: int, *, with_entropy: bool
) -> torch.Tensor:
    """Return the outputs of a pass of the policy: log-probabilities, and the values of a head on it."""
    section = planned.recipe.ppo
    if section.has_critic and not section.has_own_critic:
        return policy_log_probs_and_values(
            *(roles.policy, roles.value_head, live, episodes, planned.lengths),
            with_entropy=with_entropy,
        )
    return policy_log_probs(
        roles.policy, live, episodes, planned.lengths, with_entropy=with_entropy
    )


def _count_rollout(planned: Planned, live: LiveBytes) -> None:
    section, (prompt, response) = planned.recipe.ppo, planned.lengths
    tokens = section.rollout_batch_size * (_ROLLOUT_WORDS * response + 2 * prompt)
    live.add("activations", 4 * tokens)


def scoring_peak(planned: Planned) -> Split:
    """Return the peak of the passes that score a rollout, beside the optimizers' state."""
    section = planned.recipe.ppo

    def step(live: LiveBytes, mode: FakeTensorMode, layers: int) -> None:
        roles = _ready_to_sample(planned, live, mode, layers, training=True)
        with torch.no_grad(), planned.ppo_autocast():
            _policy_outputs(planned, roles, live, section.forward_batch_size, with_entropy=True)

    return planned.peak(step)


def sampling_peak(planned: Planned, rows: int, *, training: bool) -> Split:
    """Return the peak of sampling responses for `rows` prompts at once.

    Args:
        planned: Recipe on a device.
        rows: Prompts per batch.
        training: Whether PPO's critic and optimizers are there.
    """

    def step(live: LiveBytes, mode: FakeTensorMode, layers: int) -> None:
        roles = _ready_to_sample(planned, live, mode, layers, training=training)
        with planned.ppo_autocast():
            static = planned.recipe.generation.cache_implementation == "static"
            sample(roles.policy, live, rows, planned.lengths, static=static)

    return planned.peak(step)


def waiting_peak(planned: Planned) -> Split:
    """Return what PPO holds while another process samples: roles and optimizers."""

    def step(live: LiveBytes, mode: FakeTensorMode, layers: int) -> None:
        _ready_to_sample(planned, live, mode, layers, training=True)

    return planned.peak(step)


def _ready_to_sample(
    planned: Planned, live: LiveBytes, mode: FakeTensorMode, layers: int, *, training: bool
) -> _Roles:
    section = planned.recipe.ppo
    critic = training and section.has_own_critic
    roles = _load(planned, live, mode, layers, critic=critic)
    for role, shadow in (("critic", roles.critic), ("policy", roles.policy)):
        if shadow is not None and (training or role == "policy"):
            roles.activate(role)
            if training:
                live.add("optimizer", state_bytes(section.optim, shadow.trained()))
        if shadow is not None:
            shadow.model.eval()
    return roles
