"""The PPO loop on a bandit whose optimum is known, and its guards."""

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from rlhfctl.errors import DivergedError
from rlhfctl.maths.sampling import uniform_numbers
from rlhfctl.ppo.rollout import RowStream
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.run.monitor import NullMonitor
from tests.ppo.toy import REFERENCE, SCORES, Bandit, bandit_settings, optimum

PROMPTS = [[1]]


class Recorder(NullMonitor):
    def __init__(self):
        self.steps, self.warnings = [], []

    def step(self, done, metrics):
        self.steps.append((done, dict(metrics)))

    def warn(self, message):
        self.warnings.append(message)


def trained(bandit=None, prompts=PROMPTS, **changes):
    bandit, monitor = bandit or Bandit(), Recorder()
    trainer = PPOTrainer(bandit, prompts, bandit_settings(**changes), monitor)
    trainer.train()
    return bandit, monitor, trainer


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_ppo_finds_the_exact_optimum_of_the_penalised_reward(beta):
    bandit, monitor, _ = trained(beta=beta)
    policy = bandit.logits.detach().softmax(0)
    assert 0.5 * (policy - optimum(beta)).abs().sum() < 0.01
    exact_kl = (policy * (policy / REFERENCE).log()).sum()
    assert monitor.steps[-1][1]["kl"] == pytest.approx(exact_kl.item(), abs=0.15)


def test_the_first_metrics_are_those_of_the_reference_policy():
    _, monitor, _ = trained(episodes=256)
    metrics = monitor.steps[0][1]
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["kl_k3"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["entropy"] == pytest.approx(-(REFERENCE * REFERENCE.log()).sum().item())
    assert metrics["score"] == pytest.approx((REFERENCE * SCORES).sum().item(), abs=0.2)


@pytest.mark.parametrize(("minibatch", "epochs"), [(256, 1), (64, 2), (32, 3)])
def test_every_minibatch_is_one_optimiser_step(minibatch, epochs):
    _, monitor, trainer = trained(episodes=512, minibatch_size=minibatch, epochs=epochs)
    steps = 2 * epochs * 256 // minibatch
    assert int(trainer.ppo_step.optimizers["policy"].state[trainer.roles.logits]["step"]) == steps
    assert sum(metrics["updates"] for _, metrics in monitor.steps) == steps


def test_the_size_of_a_forward_pass_changes_no_update():
    whole, _, _ = trained(episodes=1024, minibatch_size=128)
    split, _, _ = trained(episodes=1024, minibatch_size=128, forward_batch_size=24)
    torch.testing.assert_close(whole.logits, split.logits, atol=1e-6, rtol=1e-5)


def test_three_prompts_serve_a_batch_of_any_size_without_end_or_loss():
    stream = RowStream(3, seed=5)
    taken = [stream.take(8), stream.take(1)]
    flat = [row for batch in taken for row in batch]
    assert len(flat) == 9
    for start in (0, 3, 6):
        assert sorted(flat[start : start + 3]) == [0, 1, 2]
    again = RowStream(3, seed=5, place=8)
    assert again.take(1) == taken[1]


def test_each_pass_over_the_prompts_has_an_order_of_its_own():
    stream = RowStream(32, seed=5)
    passes = [stream.take(32) for _ in range(3)]
    assert len({tuple(rows) for rows in passes}) == 3
    assert all(sorted(rows) == list(range(32)) for rows in passes)


class SeedRecorder(Bandit):
    def __init__(self):
        super().__init__()
        self.seeds = []

    def generate(self, prompts, seeds):
        self.seeds += seeds
        return super().generate(prompts, seeds)


def test_every_episode_of_every_rollout_has_sampling_noise_of_its_own():
    bandit, _, _ = trained(SeedRecorder(), episodes=256 * 3)
    numbers = uniform_numbers(bandit.seeds, 1)[:, 0].tolist()
    assert len(set(numbers)) == 256 * 3


def test_the_adaptive_controller_reaches_its_target():
    _, monitor, trainer = trained(beta=0.05, kl_target=0.3, kl_horizon=2_000.0)
    kls = [metrics["kl"] for _, metrics in monitor.steps[-40:]]
    assert sum(kls) / len(kls) == pytest.approx(0.3, abs=0.08)
    assert trainer.progress.beta != 0.05


def test_rates_warm_up_and_fall_to_nothing_by_rollout():
    settings = bandit_settings(episodes=256 * 40, warmup_rollouts=10)
    factors = [settings.learning_rate_factor(i) for i in range(40)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10] == 1.0
    assert factors[39] == pytest.approx(1 / 30)
    assert sorted(factors[:11]) == factors[:11]
    constant = bandit_settings(episodes=256 * 40, lr_schedule="constant")
    assert constant.learning_rate_factor(39) == 1.0


def test_nan_scores_end_the_run_before_any_weight_moves():
    bandit = Bandit(score=torch.full((5,), float("nan")))
    with pytest.raises(DivergedError, match="source scores"):
        trained(bandit, episodes=256)
    assert torch.equal(bandit.logits, REFERENCE.log())


class Drifting(Bandit):
    """Its training pass disagrees with its sampling pass, as a broken backend's would."""

    def log_probs(self, role, batch, *, training=False, temperature=None):
        found = super().log_probs(role, batch, training=training)
        return found._replace(log_probs=found.log_probs + 4.0 * training)


def test_minibatches_far_off_the_old_policy_are_counted_and_never_applied():
    bandit = Drifting()
    with pytest.raises(DivergedError, match="no minibatch"):
        trained(bandit, episodes=256)
    assert torch.equal(bandit.logits, REFERENCE.log())
    assert torch.equal(bandit.value, torch.zeros(1))


def test_epochs_end_early_when_the_policy_has_moved_far():
    _, monitor, trainer = trained(
        episodes=256, learning_rate=0.5, kl_early_stop=0.01, epochs=50, beta=0.0
    )
    assert trainer.progress.early_stops == 1
    assert monitor.steps[0][1]["updates"] < 50


def test_the_kl_budget_warns_and_then_stops():
    with pytest.raises(DivergedError, match="kl_stop"):
        trained(beta=0.0, learning_rate=0.3, kl_alarm=0.2, kl_stop=1.0)
    _, monitor, _ = trained(
        beta=0.0, learning_rate=0.3, kl_alarm=0.2, kl_stop=None, episodes=256 * 30
    )
    assert any("kl_alarm" in warning for warning in monitor.warnings)


def test_gradients_are_clipped_before_the_step_and_logged_before_the_clip():
    bandit = Bandit(score=SCORES * 1e4)
    stepped = []

    def record(optimizer, _args, _kwargs):
        stepped.append(float(optimizer.param_groups[0]["params"][0].grad.norm()))

    hook = register_optimizer_step_pre_hook(record)
    try:
        _, monitor, _ = trained(bandit, episodes=256, epochs=1, learning_rate=1e-3, beta=0.0)
    finally:
        hook.remove()
    assert stepped == pytest.approx([1.0, 1.0], abs=1e-3)
    assert monitor.steps[0][1]["policy_grad_norm"] > 100
    assert (bandit.logits - REFERENCE.log()).abs().max() < 2e-3
