"""An engine beside transformers: its log-probabilities are compared, logged, and weigh the loss."""

import math
from dataclasses import replace

import pytest
import torch

from rlhfctl.errors import DivergedError, EnvironmentFault
from rlhfctl.maths.advantages import Advantages
from rlhfctl.ppo.engine import Responses, TransformersEngine, require_agreement
from rlhfctl.ppo.pass_size import PassSize
from rlhfctl.ppo.ppo_step import PPOStep
from rlhfctl.ppo.processes import Processes
from rlhfctl.ppo.rewards import Rewards
from rlhfctl.ppo.rollout import RolloutSampler
from rlhfctl.ppo.rollout_metrics import RolloutTimer, UpdateMetrics
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.ppo.unfinished_rollout import UnfinishedRollout
from rlhfctl.run.monitor import NullMonitor
from tests.ppo.toy import REFERENCE, Bandit, bandit_settings
from tests.present import present

BIASES = (0.0, 0.0, 0.4, -1.0, 0.0)
"""Error of the engine's log-probability of each arm, in nats."""
SETTINGS = {"episodes": 256 * 4, "minibatch_size": 64, "max_mismatch": None}


class Biased:
    """Samples as transformers does, with other log-probabilities; fails at the n-th call."""

    def __init__(self, bandit, biases=BIASES, fails_at=0):
        self.engine = TransformersEngine(bandit, PassSize(256))
        self.bandit, self.biases, self.calls = bandit, biases, fails_at

    def sample(self, prompts, seeds, progress):
        self.calls -= 1
        if self.calls == 0:
            raise EnvironmentFault("the server is gone")
        ids = self.engine.sample(prompts, seeds, progress).ids
        table = self.bandit.logits.detach().log_softmax(0).tolist()
        return Responses(ids, [[table[arm] + self.biases[arm]] for [arm] in ids])


class Scores:
    name = "bandit"

    def scores(self, batch, rows):
        return Bandit().scores(batch)


def train(folder=None, engine=Biased, **changes):
    bandit, logged = Bandit(), []

    class Recorder(NullMonitor):
        def step(self, done, metrics):
            logged.append(metrics)

    trainer = PPOTrainer(
        bandit,
        [[1]],
        bandit_settings(**{**SETTINGS, **changes}),
        Recorder(),
        checkpoints=folder,
        engine=None if engine is None else engine(bandit),
    )
    trainer.train()
    return bandit, logged, trainer


def collected(bandit, settings, biases=BIASES):
    """A rollout with an advantage per episode."""
    sampler = RolloutSampler(
        bandit,
        Rewards([Scores()], [1.0]),
        [[1]],
        settings,
        Processes(),
        engine=Biased(bandit, biases),
    )
    episodes = sampler.score(sampler.sample([0] * 64, 0), [0] * 64)
    advantages = torch.linspace(-2, 3, 64)[:, None]
    estimate = Advantages(advantages, advantages.clone())
    scores = episodes.model_scores.clone()
    return episodes.with_advantages(scores, advantages.clone(), estimate, 0.0)


def test_the_default_engine_gives_the_numbers_of_one_that_agrees():
    whole, logged, _ = train(engine=None)
    same, with_engine, _ = train(
        engine=lambda bandit: Biased(bandit, (0.0,) * 5), importance_sampling_clip_max=2.0
    )
    assert torch.equal(whole.logits, same.logits)
    assert "engine_mismatch" not in logged[0]
    # The bandit's log_softmax is computed in two ways.
    assert with_engine[0]["engine_mismatch_max"] < 1e-6
    assert with_engine[0]["importance_weight"] == pytest.approx(1.0)


def test_mean_and_largest_difference_are_logged():
    _, logged, trainer = train()
    rollout = present(trainer.rollout)
    arms = rollout.sequences.responses[:, 0]
    expected = torch.tensor(BIASES).abs()[arms]
    assert logged[-1]["engine_mismatch"] == pytest.approx(float(expected.mean()), abs=1e-6)
    assert logged[-1]["engine_mismatch_max"] == pytest.approx(1.0, abs=1e-6)


def test_a_mean_difference_above_the_bound_ends_the_run_before_its_update():
    with pytest.raises(DivergedError, match=r"above ppo\.vllm\.max_mismatch \(0\.01\)") as caught:
        train(max_mismatch=0.01)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("cap", [None, 0.9, 2.0])
def test_the_policy_gradient_is_that_of_the_weighted_loss(cap):
    """Against min(pi / pi_engine, cap) * A * grad log pi, which PPO's is at ratio 1, in float64."""
    settings = bandit_settings(
        rollout_batch_size=64, importance_sampling_clip_max=cap, max_mismatch=None
    )
    bandit = Bandit()
    rollout = collected(bandit, settings)
    step = PPOStep(bandit, settings, Processes())
    metrics = step.accumulate(rollout, torch.arange(64), ("policy",))
    arms, expected, weights = rollout.sequences.responses[:, 0].tolist(), [0.0] * 5, []
    probabilities = (REFERENCE.double() / REFERENCE.double().sum()).tolist()
    for arm, advantage in zip(arms, rollout.advantages[:, 0].tolist(), strict=True):
        weight = 1.0 if cap is None else min(math.exp(-BIASES[arm]), cap)
        weights.append(weight)
        for other in range(5):
            slope = (arm == other) - probabilities[other]
            expected[other] -= weight * advantage * slope / 64
    assert present(bandit.logits.grad).tolist() == pytest.approx(expected, abs=1e-6)
    if cap is not None:
        assert metrics["importance_weight"] == pytest.approx(sum(weights) / 64)


def test_a_lost_server_leaves_a_checkpoint_from_which_the_run_goes_on_alike(tmp_path):
    whole, _, _ = train(importance_sampling_clip_max=2.0)
    settings = {"save_minutes": None, "save_rollouts": None, "importance_sampling_clip_max": 2.0}
    with pytest.raises(EnvironmentFault) as caught:
        train(tmp_path, lambda bandit: Biased(bandit, fails_at=3), **settings)
    assert caught.value.exit_code == 4
    resumed, logged, _ = train(tmp_path, **settings)
    assert len(logged) == 2
    assert torch.equal(resumed.logits, whole.logits)


def test_an_unfinished_rollout_keeps_the_engines_log_probabilities(tmp_path):
    rollout = collected(Bandit(), bandit_settings(rollout_batch_size=64, max_mismatch=None))
    for saved in (rollout, replace(rollout, engine_log_probs=None)):
        UnfinishedRollout(saved, RolloutTimer(), UpdateMetrics()).save(tmp_path)
        loaded = present(UnfinishedRollout.load(tmp_path, torch.device("cpu"))).rollout
        expected = saved.engine_log_probs
        if expected is None:
            assert loaded.engine_log_probs is None
        else:
            assert torch.equal(present(loaded.engine_log_probs), expected)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_log_probabilities_that_are_no_numbers_are_refused_too(value):
    mask = torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(DivergedError, match=r"above ppo\.vllm\.max_mismatch"):
        require_agreement(torch.zeros(1, 2), torch.tensor([[0.0, value]]), mask, 0.1)
