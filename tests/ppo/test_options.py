"""Each switch of the algorithm does what its name says, on a bandit whose optimum is known."""

import math

import pytest
import torch

from rlhfctl.errors import EnvironmentFault, RecipeError
from rlhfctl.ppo.processes import Processes
from rlhfctl.ppo.rewards import Rewards
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.run.monitor import NullMonitor
from tests.ppo.toy import REFERENCE, SCORES, Bandit, bandit_settings, optimum
from tests.present import present


class Recorder(NullMonitor):
    def __init__(self, bandit):
        self.bandit = bandit
        self.metrics, self.logits, self.values = [], [], []

    def step(self, done, metrics):
        self.metrics.append(dict(metrics))
        self.logits.append(self.bandit.logits.detach().clone())
        self.values.append(self.bandit.value.detach().clone())


def trained(bandit=None, prompts=((1,),), rewards=None, demonstrations=(), **changes):
    bandit = bandit or Bandit()
    changes = {"episodes": 256 * 200} | changes
    monitor = Recorder(bandit)
    trainer = PPOTrainer(
        bandit,
        prompts,
        bandit_settings(**changes),
        monitor,
        rewards=rewards,
        demonstrations=demonstrations,
    )
    trainer.train()
    return bandit, monitor, trainer


def distance(bandit, target):
    return float(0.5 * (bandit.logits.detach().softmax(0) - target).abs().sum())


def optimum_of_the_other_direction(beta):
    """Maximum of E[score] - beta KL(ref || pi): beta ref / (multiplier - score), by bisection."""
    low, high = SCORES.max().item() + 1e-9, SCORES.max().item() + 10.0
    for _ in range(200):
        multiplier = (low + high) / 2
        total = (beta * REFERENCE.double() / (multiplier - SCORES.double())).sum()
        low, high = (multiplier, high) if total > 1 else (low, multiplier)
    return beta * REFERENCE / (low - SCORES)


def test_k2_in_the_loss_has_the_optimum_of_k1_in_the_reward():
    bandit, monitor, _ = trained(kl_penalty="loss", kl_estimator="k2", beta=0.5)
    assert distance(bandit, optimum(0.5)) < 0.02
    assert monitor.metrics[-1]["kl_loss"] > 0.1
    assert monitor.metrics[-1]["reward"] == pytest.approx(monitor.metrics[-1]["score"])


def test_k3_in_the_loss_penalises_the_other_direction():
    bandit, _, _ = trained(kl_penalty="loss", kl_estimator="k3", beta=0.5)
    assert distance(bandit, optimum_of_the_other_direction(0.5)) < 0.02
    assert distance(bandit, optimum(0.5)) > 0.05


@pytest.mark.parametrize(("estimator", "responses"), [("batch_mean", 1), ("rloo", 4)])
def test_without_a_critic_rewards_lead_to_the_same_optimum(estimator, responses):
    bandit, monitor, trainer = trained(
        advantage_estimator=estimator, responses_per_prompt=responses
    )
    assert distance(bandit, optimum(0.5)) < 0.02
    assert torch.equal(bandit.value, torch.zeros(1))
    assert set(trainer.ppo_step.optimizers) == {"policy"}
    assert not {"value_loss", "explained_variance", "value_learning_rate"} & set(monitor.metrics[0])


def test_the_critic_alone_learns_in_its_warm_up():
    _, monitor, _ = trained(episodes=256 * 5, critic_warmup_rollouts=3)
    for logits in monitor.logits[:3]:
        assert torch.equal(logits, REFERENCE.log())
    assert not torch.equal(monitor.logits[3], REFERENCE.log())
    moved = [float(value) for value in monitor.values]
    assert len(set(moved)) == 5
    assert "policy_loss" not in monitor.metrics[2]
    assert "policy_loss" in monitor.metrics[3]


def test_the_saved_policy_is_the_running_mean_and_training_goes_on_without_it():
    plain, monitor, _ = trained(episodes=256 * 8)
    averaged, recorded, _ = trained(episodes=256 * 8, ema_decay=0.7)
    mean = REFERENCE.log()
    for logits in monitor.logits:
        mean = 0.7 * mean + 0.3 * logits
    assert torch.equal(recorded.logits[-1], plain.logits)
    torch.testing.assert_close(averaged.logits.detach(), mean, atol=1e-6, rtol=1e-6)


class Told(Bandit):
    """Notes at which temperature its training passes were asked."""

    def __init__(self):
        super().__init__(score=torch.zeros(5))
        self.temperatures = set()

    def log_probs(self, role, batch, *, training=False, temperature=None):
        if training:
            self.temperatures.add(temperature)
        return super().log_probs(role, batch, training=training)


def test_demonstrations_pull_the_policy_towards_them():
    demonstrations = [([1], [0]), ([1], [3])]
    bandit, monitor, _ = trained(
        Told(), demonstrations=demonstrations, ptx_coefficient=2.0, beta=0.0, episodes=256 * 150
    )
    probabilities = bandit.logits.detach().softmax(0)
    torch.testing.assert_close(probabilities[[0, 3]], torch.tensor([0.5, 0.5]), atol=0.02, rtol=0)
    assert monitor.metrics[-1]["ptx_loss"] == pytest.approx(math.log(2), abs=0.05)
    assert bandit.temperatures == {None, 1.0}


def test_the_demonstrations_gradient_is_the_coefficient_times_that_of_the_sft_loss():
    bandit = Bandit(score=torch.zeros(5))
    demonstrations = [([1], [0]), ([1], [3]), ([1], [3])]
    settings = bandit_settings(ptx_coefficient=27.8, ptx_batch_size=3, forward_batch_size=2)
    trainer = PPOTrainer(bandit, [[1]], settings, NullMonitor(), demonstrations=demonstrations)
    trainer.ppo_step._demonstrations_part(present(trainer._ptx_batch()), 2)
    logits = REFERENCE.log().clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(logits.expand(3, -1), torch.tensor([0, 3, 3]))
    (27.8 * loss).backward()
    torch.testing.assert_close(bandit.logits.grad, logits.grad)


def test_several_responses_share_a_prompt_and_differ():
    seen = []
    settings = bandit_settings(
        episodes=16,
        rollout_batch_size=16,
        minibatch_size=16,
        responses_per_prompt=4,
        samples_per_run=1,
    )
    trainer = PPOTrainer(
        Bandit(),
        [[1], [2], [3], [4]],
        settings,
        NullMonitor(),
        keep_samples=lambda _, rollout: seen.append(rollout),
    )
    trainer.train()
    (rollout,) = seen
    groups = [rollout.rows[at : at + 4] for at in range(0, 16, 4)]
    assert sorted(group[0] for group in groups) == [0, 1, 2, 3]
    assert all(len(set(group)) == 1 for group in groups)
    responses = rollout.sequences.response_lists()
    assert any(len({tuple(r) for r in responses[at : at + 4]}) > 1 for at in range(0, 16, 4))


class Ahead(Bandit):
    """Its training pass gives every token e times the probability, against values far too high."""

    def __init__(self):
        super().__init__()
        self.value.data.fill_(10.0)

    def log_probs(self, role, batch, *, training=False, temperature=None):
        found = super().log_probs(role, batch, training=training)
        return found._replace(log_probs=found.log_probs + 1.0 * training)


def test_a_dual_clip_bounds_what_a_bad_token_can_do():
    free, _, _ = trained(Ahead(), episodes=256, epochs=1)
    bound, _, _ = trained(Ahead(), episodes=256, epochs=1, dual_clip=2.0)
    wide, _, _ = trained(Ahead(), episodes=256, epochs=1, dual_clip=3.0)
    assert torch.equal(bound.logits, REFERENCE.log())
    assert not torch.equal(free.logits, REFERENCE.log())
    assert torch.equal(wide.logits, free.logits)


class Table:
    def __init__(self, name, values):
        self.name = name
        self.values = torch.tensor(values)

    def scores(self, batch, rows):
        return self.values[batch.responses[:, 0]]


TABLES = (Table("one", [0.0, 0.5, 1.0, 1.5, 2.0]), Table("two", [0.0, 0.0, 0.0, 0.0, -4.0]))


def test_sources_are_weighed_and_each_is_reported():
    rewards = Rewards(TABLES, [1.0, 0.25])
    bandit, monitor, _ = trained(rewards=rewards)
    weights = REFERENCE * torch.exp((TABLES[0].values + 0.25 * TABLES[1].values) / 0.5)
    assert distance(bandit, weights / weights.sum()) < 0.02
    metrics = monitor.metrics[0]
    assert metrics["score"] == pytest.approx(
        metrics["score_one"] + 0.25 * metrics["score_two"], abs=1e-5
    )
    assert metrics["score_disagreement"] > 0


def test_the_worst_source_decides_under_the_worst_case_rule():
    bandit, _, _ = trained(rewards=Rewards(TABLES, [1.0, 1.0], "worst"))
    worst = torch.minimum(TABLES[0].values, TABLES[1].values)
    weights = REFERENCE * torch.exp(worst / 0.5)
    assert distance(bandit, weights / weights.sum()) < 0.02


def test_moments_in_8_bits_are_refused_where_there_is_no_gpu():
    with pytest.raises(EnvironmentFault, match="GPU"):
        trained(episodes=256, optim="adamw_8bit")


class Three(Processes):
    def __init__(self):
        super().__init__()
        self.count = 3


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("rollout_batch_size", {}),
        ("minibatch_size", {"rollout_batch_size": 96, "minibatch_size": 32}),
        (
            "ptx_batch_size",
            {"rollout_batch_size": 96, "minibatch_size": 96, "ptx_coefficient": 1.0},
        ),
    ],
)
def test_a_batch_that_processes_cannot_share_is_refused_by_name(name, changes):
    with pytest.raises(RecipeError, match=name):
        PPOTrainer(Bandit(), [[1]], bandit_settings(**changes), NullMonitor(), processes=Three())
