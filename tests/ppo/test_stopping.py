"""Stopped by a signal in any phase of a rollout and resumed, PPO ends as a run that never was."""

import os
import signal
from typing import Any

import pytest
import torch

from rlhfctl.ppo.hooks import HeldOutEvaluation
from rlhfctl.ppo.processes import Processes
from rlhfctl.ppo.safe_points import SafePoints
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.run import stop
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.run.stop import Stopped
from tests.ppo.toy import Bandit, bandit_settings

SETTINGS = {
    "episodes": 256 * 5,
    "minibatch_size": 64,
    "kl_target": 0.3,
    "kl_horizon": 2_000.0,
    "score_normalization": "running",
    "ema_decay": 0.6,
    "critic_warmup_rollouts": 1,
    "ptx_coefficient": 0.1,
    "ptx_batch_size": 2,
    "eval_rollouts": 2,
}
PER_ROLLOUT = 4 * 256 // 64
"""Minibatches of one rollout."""


class Clumsy(Bandit):
    """A bandit in which a signal arrives at the n-th call of a method."""

    def __init__(self, method="", calls=0):
        super().__init__()
        self.method, self.calls = method, calls

    def meet(self, method):
        if method == self.method:
            self.calls -= 1
            if self.calls == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    def generate(self, *arguments):
        self.meet("generate")
        return super().generate(*arguments)

    def scores(self, batch):
        self.meet("scores")
        return super().scores(batch)

    def values(self, batch, *, training=False):
        if training:
            self.meet("train")
        return super().values(batch, training=training)


class Looker:
    """Evaluates the policy; keeps one line per evaluation, as the real one does."""

    def __init__(self, bandit, lines):
        self.bandit, self.lines = bandit, lines

    def evaluate(self, rollout, episodes):
        self.bandit.meet("evaluate")
        seen = self.bandit.logits.detach().tolist()
        self.lines.append((rollout, seen))
        return HeldOutEvaluation({"held_out_kl": seen[0]})

    def resume_from(self, rollout):
        self.lines[:] = [line for line in self.lines if line[0] <= rollout]


def new_logs() -> tuple[list[Any], list[Any]]:
    """Return an empty list of evaluations and one of logged steps."""
    return [], []


class Log(NullMonitor):
    def __init__(self, steps):
        self.steps = steps
        self.notes = []

    def step(self, done, metrics):
        timed = ("_seconds", "per_second", "_bytes")
        kept = {key: value for key, value in metrics.items() if not key.endswith(timed)}
        self.steps.append((done, kept))

    def note(self, message):
        self.notes.append(message)


def train(folder, lines, steps, bandit=None, **changes):
    """Train to the end or to the signal; return the bandit, the trainer and what was noted."""
    bandit = bandit or Clumsy()
    log = Log(steps)
    trainer = PPOTrainer(
        bandit,
        [[1], [2], [3]],
        bandit_settings(**(SETTINGS | changes)),
        log,
        checkpoints=folder,
        demonstrations=[([1], [0]), ([1], [4]), ([1], [2])],
        evaluator=Looker(bandit, lines),
    )
    with stop.handled(), stop.deferred(lambda _: None):
        trainer.train()
    return bandit, trainer, log.notes


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    lines, steps = new_logs()
    bandit, trainer, _ = train(tmp_path_factory.mktemp("whole"), lines, steps)
    return bandit, trainer, lines, steps


def assert_equal(whole, bandit, trainer, lines, steps):
    reference, whole_trainer, whole_lines, whole_steps = whole
    assert torch.equal(bandit.logits, reference.logits)
    assert torch.equal(bandit.value, reference.value)
    assert trainer.progress == whole_trainer.progress
    assert lines == whole_lines
    assert steps == whole_steps


@pytest.mark.parametrize(
    ("method", "calls", "kept"),
    [
        ("generate", 1, "rollout-00000000"),
        ("generate", 3, "rollout-00000002"),
        ("scores", 3, "rollout-00000002"),
        ("train", 1, "rollout-00000000-000001"),
        ("train", 2 * PER_ROLLOUT + 5, "rollout-00000002-000005"),
        ("train", 3 * PER_ROLLOUT, "rollout-00000003"),
        ("evaluate", 2, "rollout-00000001-evaluation"),
        ("evaluate", 4, "rollout-00000004-evaluation"),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(tmp_path, whole, method, calls, kept):
    lines, steps = new_logs()
    with pytest.raises(Stopped):
        train(tmp_path, lines, steps, Clumsy(method, calls))
    assert [path.name for path in tmp_path.iterdir()] == [kept]
    bandit, trainer, _ = train(tmp_path, lines, steps)
    assert_equal(whole, bandit, trainer, lines, steps)


def test_stopped_again_and_again_equals_uninterrupted(tmp_path, whole):
    lines, steps = new_logs()
    stops = 0
    while True:
        try:
            bandit, trainer, _ = train(tmp_path, lines, steps, Clumsy("train", 7))
        except Stopped:
            stops += 1
        else:
            break
    assert stops == 5 * PER_ROLLOUT // 7
    assert_equal(whole, bandit, trainer, lines, steps)


def test_a_signal_in_the_last_update_lets_the_run_end(tmp_path, whole):
    lines, steps = new_logs()
    last = Clumsy("train", 5 * PER_ROLLOUT)
    bandit, trainer, _ = train(tmp_path, lines, steps, last, eval_rollouts=None)
    assert last.calls == 0
    assert trainer.progress.rollout == 5
    assert torch.equal(bandit.logits, whole[0].logits)


def test_a_signal_before_the_first_rollout_has_nothing_to_save(tmp_path):
    with pytest.raises(Stopped):
        train(tmp_path, [], [], Clumsy("evaluate", 1))
    assert list(tmp_path.iterdir()) == []


def test_saving_by_time_does_not_change_the_result_and_keeps_the_newest_two(tmp_path, whole):
    lines, steps = new_logs()
    bandit, trainer, _ = train(tmp_path, lines, steps, save_minutes=1e-9)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "rollout-00000004-000014",
        "rollout-00000004-000015",
    ]
    assert_equal(whole, bandit, trainer, lines, steps)


def test_a_batch_mean_run_without_a_critic_is_resumed_too(tmp_path):
    changes = {"advantage_estimator": "batch_mean", "critic_warmup_rollouts": 0}
    reference, _, _ = train(None, [], [], **changes)

    class Stopping(Clumsy):
        def log_probs(self, role, batch, *, training=False, temperature=None):
            if training:
                self.meet("policy")
            return super().log_probs(role, batch, training=training, temperature=temperature)

    with pytest.raises(Stopped):
        train(tmp_path, [], [], Stopping("policy", 40), **changes)
    bandit, _, _ = train(tmp_path, [], [], **changes)
    assert torch.equal(bandit.logits, reference.logits)


class Clock:
    """A clock that only the test advances."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("rlhfctl.ppo.safe_points.time.monotonic", lambda: self.now)


@pytest.mark.parametrize("step", [1.0, 37.0, 300.0])
def test_no_more_than_the_given_minutes_pass_without_a_save(monkeypatch, step):
    clock = Clock(monkeypatch)
    points = SafePoints(Processes(), 10.0)
    saves, last, longest = 0, 0.0, 0.0
    while clock.now < 7200:
        clock.now += step
        longest = max(longest, clock.now - last)
        if points.reached().save:
            clock.now += 2.0
            points.saved()
            last, saves = clock.now, saves + 1
    assert longest <= 600
    assert saves <= 7200 / (600 - step) + 1


def test_steps_longer_than_the_limit_save_at_each_and_null_never_saves(monkeypatch):
    clock = Clock(monkeypatch)
    by_time, never = SafePoints(Processes(), 10.0), SafePoints(Processes(), None)
    for _ in range(3):
        clock.now += 1200
        assert by_time.reached().save
        by_time.saved()
        assert not never.reached().save
