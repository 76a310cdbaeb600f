"""Looks at held-out prompts between rollouts: when they come, what they see, what they change."""

import pytest
import torch

from rlhfctl.ppo.hooks import HeldOutEvaluation
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.run.monitor import NullMonitor
from tests.ppo.toy import Bandit, Cut, Dying, bandit_settings

PROMPTS = [[1], [2], [3]]


class Recorder:
    """Remembers when it looked and the policy that it saw."""

    def __init__(self, bandit, stop_at=None):
        self.bandit = bandit
        self.stop_at = stop_at
        self.looks = []
        self.policies = []
        self.went_on_from = []

    def evaluate(self, rollout, episodes):
        self.looks.append((rollout, episodes))
        self.policies.append(self.bandit.logits.detach().clone())
        return HeldOutEvaluation({"held_out_kl": float(rollout)}, stop=rollout == self.stop_at)

    def resume_from(self, rollout):
        self.went_on_from.append(rollout)


class Heard(NullMonitor):
    def __init__(self):
        self.steps = []

    def step(self, done, metrics):
        self.steps.append((done, dict(metrics)))


def train(watched=True, stop_at=None, folder=None, monitor=None, **changes):
    settings = bandit_settings(episodes=256 * 5, **({"eval_rollouts": 2} | changes))
    bandit = Bandit()
    watch = Recorder(bandit, stop_at) if watched else None
    monitor = monitor or Heard()
    trainer = PPOTrainer(bandit, PROMPTS, settings, monitor, checkpoints=folder, evaluator=watch)
    trainer.train()
    return bandit, watch, monitor, trainer


def test_evaluations_run_before_the_first_rollout_periodically_and_after_the_last():
    _, watch, heard, _ = train()
    assert watch.looks == [(0, 0), (2, 512), (4, 1024), (5, 1280)]
    seen = [
        (done, metrics["held_out_kl"]) for done, metrics in heard.steps if "held_out_kl" in metrics
    ]
    assert seen == [(0, 0.0), (512, 2.0), (1024, 4.0), (1280, 5.0)]


def test_held_out_evaluation_does_not_change_training():
    watched, alone = train()[0], train(watched=False)[0]
    assert torch.equal(watched.logits, alone.logits)
    assert torch.equal(watched.value, alone.value)


def test_eval_rollouts_null_disables_held_out_evaluation():
    assert train(eval_rollouts=None)[1].looks == []


def test_an_evaluation_can_stop_training():
    bandit, watch, _, trainer = train(stop_at=2)
    assert trainer.progress.rollout == 2
    assert torch.equal(bandit.logits, watch.policies[-1])


def test_the_policy_is_evaluated_as_it_would_be_saved():
    bandit, watch, _, trainer = train(ema_decay=0.6)
    assert torch.equal(watch.policies[-1], trainer.hooks.average.means[0])
    assert torch.equal(bandit.logits, watch.policies[-1])
    raw = train(watched=False, ema_decay=0.6)[0]
    assert torch.equal(bandit.logits, raw.logits), "the running mean was put back"


@pytest.mark.parametrize(("after", "place"), [(3, 2), (5, 4)])
def test_a_resumed_run_does_not_repeat_the_evaluation_of_its_checkpoint(tmp_path, after, place):
    with pytest.raises(Cut):
        train(folder=tmp_path, save_rollouts=1, monitor=Dying(after))
    resumed, watch, _, _ = train(folder=tmp_path, save_rollouts=1)
    assert watch.went_on_from == [place]
    assert all(rollout > place for rollout, _ in watch.looks)
    assert torch.equal(resumed.logits, train()[0].logits)
