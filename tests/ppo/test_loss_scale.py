"""The scale of the losses where passes compute in float16, on the CPU."""

from dataclasses import replace

import pytest
import torch

from rlhfctl.maths.advantages import shape_rewards
from rlhfctl.maths.statistics import RunningMoments
from rlhfctl.models.roles import load_roles
from rlhfctl.ppo import checkpoint
from rlhfctl.ppo.checkpoint import Progress
from rlhfctl.ppo.ppo_step import PPOStep
from rlhfctl.ppo.processes import Processes
from rlhfctl.ppo.rewards import Rewards
from rlhfctl.ppo.rollout import RolloutSampler, estimate_advantages
from rlhfctl.ppo.trainer import _RewardModel
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.shared.stage_context import open_stage_context
from tests.ppo.toy import bandit_settings
from tests.ppo.whole import PROMPTS
from tests.present import present

ROWS = torch.arange(len(PROMPTS))
SETTINGS = bandit_settings(rollout_batch_size=len(PROMPTS), forward_batch_size=4, max_grad_norm=1e9)


def in_float16(run):
    half = run.recipe.model.model_copy(update={"dtype": "float16"})
    recipe = run.recipe.model_copy(update={"model": half})
    context = open_stage_context(recipe)
    return load_roles(
        recipe,
        context.tokenizer,
        context.stop_token_ids,
        run.stage("sft"),
        [run.stage("rm")],
        critic="reward_model",
    )


@pytest.fixture
def whole(tiny_run):
    roles = in_float16(tiny_run)
    assert roles.computes_in_float16
    sampler = RolloutSampler(
        roles, Rewards([_RewardModel(roles)], [1.0]), PROMPTS, SETTINGS, Processes()
    )
    episodes = sampler.score(sampler.sample(range(len(PROMPTS)), 0), range(len(PROMPTS)))
    rewards = shape_rewards(episodes.model_scores, episodes.token_kl, episodes.mask, 0.1)
    estimate = estimate_advantages(rewards, episodes.values, episodes.mask, SETTINGS)
    rollout = episodes.with_advantages(episodes.model_scores, rewards, estimate, 0.1)
    return roles, rollout


def policy_gradient(step, rollout):
    """The gradient that the optimiser would get, without its step."""
    step.drop()
    step.accumulate(rollout, ROWS, ("policy",))
    step.scaler.unscale_(step.optimizers["policy"])
    found = torch.cat([weight.grad.flatten() for weight in step.weights["policy"]])
    step.scaler.update()
    return found


def test_small_gradients_survive_float16_by_the_scale_alone(whole):
    roles, rollout = whole
    step = PPOStep(roles, SETTINGS, Processes())
    assert {weight.dtype for weight in step.weights["policy"]} == {torch.float32}
    full = policy_gradient(step, rollout)
    small = replace(rollout, advantages=rollout.advantages * 2.0**-14)
    error = (policy_gradient(step, small) * 2.0**14 - full).norm() / full.norm()
    assert error < 0.02
    plain = PPOStep(replace(roles, computes_in_float16=False), SETTINGS, Processes())
    unscaled = (policy_gradient_unscaled(plain, small) * 2.0**14 - full).norm() / full.norm()
    assert unscaled > 0.2, "float16 lost nothing here, so the scale is not tested"


def policy_gradient_unscaled(step, rollout):
    step.drop()
    step.accumulate(rollout, ROWS, ("policy",))
    return torch.cat([weight.grad.flatten() for weight in step.weights["policy"]])


def test_an_overflow_skips_the_step_and_halves_the_scale(whole):
    roles, rollout = whole
    step = PPOStep(roles, SETTINGS, Processes())
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = [weight.detach().clone() for weight in step.weights["policy"]]
    step.accumulate(rollout, ROWS, ("policy", "critic"))
    assert step.step(("policy", "critic")) is None
    assert step.scaler.get_scale() == 2.0**39
    assert all(torch.equal(a, b) for a, b in zip(before, step.weights["policy"], strict=True))
    step.scaler.update(2.0**12)
    step.accumulate(rollout, ROWS, ("policy", "critic"))
    norms = step.step(("policy", "critic"))
    assert norms is not None
    assert set(norms) == {"policy_grad_norm", "value_grad_norm"}
    assert not any(
        torch.equal(a, b) for a, b in zip(before[1:2], step.weights["policy"][1:2], strict=True)
    )


def test_a_checkpoint_holds_the_scale(whole, tmp_path):
    roles, rollout = whole
    step = PPOStep(roles, SETTINGS, Processes())
    step.accumulate(rollout, ROWS, ("policy", "critic"))
    step.scaler.update(2.0**9)
    checkpoint.save(tmp_path, step, [], Progress(3, 0.1, RunningMoments()))
    other = PPOStep(roles, SETTINGS, Processes())
    assert present(checkpoint.load_latest(tmp_path, other, [], NullMonitor()))[0].rollout == 3
    assert other.scaler.get_scale() == 2.0**9
