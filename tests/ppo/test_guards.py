"""A role that gives no numbers, in its passes or in their gradients, moves no weight unseen."""

import math

import pytest
import torch

from rlhfctl.errors import DivergedError
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.run.monitor import NullMonitor
from tests.ppo.toy import REFERENCE, Bandit, bandit_settings

WHERE = ["value", "gradient"]


class Recorder(NullMonitor):
    def __init__(self):
        self.metrics = []

    def step(self, done, metrics):
        self.metrics.append(dict(metrics))


def trained(bandit, prompts=((1,),), **changes):
    monitor = Recorder()
    trainer = PPOTrainer(bandit, [list(p) for p in prompts], bandit_settings(**changes), monitor)
    trainer.train()
    return monitor.metrics


class Broken(torch.autograd.Function):
    """A right value whose gradient is no number."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


class BrokenOnce(Bandit):
    """One training pass of the whole run is not finite, in value or in gradient."""

    def __init__(self, where, call):
        super().__init__()
        self.where, self.left = where, call

    def log_probs(self, role, batch, *, training=False, temperature=None):
        found = super().log_probs(role, batch, training=training, temperature=temperature)
        if not training:
            return found
        self.left -= 1
        if self.left:
            return found
        broken = (
            found.log_probs * math.nan if self.where == "value" else Broken.apply(found.log_probs)
        )
        return found._replace(log_probs=broken)


@pytest.mark.parametrize("where", WHERE)
def test_one_broken_minibatch_is_skipped_counted_and_leaves_the_rest_standing(where):
    bandit = BrokenOnce(where, call=2)
    (metrics,) = trained(bandit, episodes=256, minibatch_size=64, epochs=1)
    assert metrics["skipped_minibatches"] == 1
    assert metrics["updates"] == 3
    assert all(math.isfinite(value) for value in metrics.values())
    assert bool(torch.isfinite(bandit.logits).all())
    assert not torch.equal(bandit.logits, REFERENCE.log())


@pytest.mark.parametrize("where", WHERE)
def test_where_every_minibatch_is_broken_nothing_moves_and_the_run_ends(where):
    bandit = BrokenOnce(where, call=1)
    with pytest.raises(DivergedError, match="no minibatch"):
        trained(bandit, episodes=256, minibatch_size=256, epochs=1)
    assert torch.equal(bandit.logits, REFERENCE.log())
    assert torch.equal(bandit.value, torch.zeros(1))


@pytest.mark.parametrize("prompts", [1, 3])
def test_fewer_prompts_than_a_batch_train_as_many_steps_as_any(prompts):
    """Never a hang, never a run of no updates."""
    metrics = trained(
        Bandit(),
        prompts=[(at,) for at in range(prompts)],
        episodes=512,
        minibatch_size=64,
        epochs=2,
    )
    assert len(metrics) == 2
    assert sum(row["updates"] for row in metrics) == 2 * 2 * 256 / 64
