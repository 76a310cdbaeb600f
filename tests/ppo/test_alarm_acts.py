"""Acts on alarms: beta raised, an earlier policy restored, training ended, each at its time only."""

from dataclasses import replace

import pytest
import torch

from rlhfctl.errors import CheckpointError
from rlhfctl.ppo import checkpoint
from rlhfctl.ppo.alarm_acts import Act, AlarmState
from rlhfctl.ppo.hooks import HeldOutEvaluation
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.run.monitor import NullMonitor
from tests.ppo.toy import Bandit, Cut, Dying, bandit_settings

PROMPTS = [[1], [2], [3]]
ROLLOUTS = 8
SETTINGS = {
    "episodes": 256 * ROLLOUTS,
    "epochs": 1,
    "eval_rollouts": 1,
    "save_rollouts": 1,
    "score_normalization": "running",
    "ema_decay": 0.6,
    "ptx_coefficient": 0.1,
    "ptx_batch_size": 2,
}
DEMONSTRATIONS = [([1], [0]), ([1], [4]), ([1], [2])]


class Alarmed:
    """Raises alarms at planned calls and remembers the state that it saw at each rollout."""

    def __init__(self, trainer_of, plan, has_best=False):
        self.trainer_of = trainer_of
        self.plan = plan
        self.has_best = has_best
        self.seen = {}

    def evaluate(self, rollout, episodes):
        trainer = self.trainer_of()
        self.seen[rollout] = (trainer.roles.logits.detach().clone(), trainer.stream.place)
        return HeldOutEvaluation({}, alarms=self.plan.get(rollout, ()), has_best=self.has_best)

    def resume_from(self, rollout):
        pass


class Lines(NullMonitor):
    def __init__(self):
        self.warnings = []
        self.betas = []
        self.acts = []

    def warn(self, message):
        self.warnings.append(message)

    def step(self, done, metrics):
        if "beta" in metrics:
            self.betas.append(metrics["beta"])
            self.acts.append(metrics.get("alarm_acts"))


def train(folder, plan, on_alarm, monitor=None, *, has_best=False, **changes):
    monitor = monitor or Lines()
    trainers: list[PPOTrainer] = []
    evaluator = Alarmed(lambda: trainers[0], plan, has_best)
    trainer = PPOTrainer(
        Bandit(),
        PROMPTS,
        bandit_settings(**(SETTINGS | {"on_alarm": on_alarm} | changes)),
        monitor,
        checkpoints=folder,
        demonstrations=DEMONSTRATIONS,
        evaluator=evaluator,
    )
    trainers.append(trainer)
    trainer.train()
    return trainer, evaluator, monitor


def test_warn_changes_nothing(tmp_path):
    plan = dict.fromkeys(range(1, ROLLOUTS), ("length",))
    quiet, alarmed = (
        train(tmp_path / name, alarms, "warn") for name, alarms in (("a", {}), ("b", plan))
    )
    assert torch.equal(quiet[0].roles.logits, alarmed[0].roles.logits)
    assert alarmed[0].progress.alarms == AlarmState()
    assert alarmed[2].betas == [0.5] * ROLLOUTS
    assert alarmed[2].acts == [None] * ROLLOUTS


def test_an_alarm_raises_beta_once_until_it_was_clear_long_enough(tmp_path):
    """Active at 2 and 3, clear at 4, active at 5, clear at 6 and 7, and active at 8, the last."""
    plan = dict.fromkeys((2, 3, 5), ("kl",)) | {8: ("kl",)}
    trainer, _, lines = train(tmp_path, plan, "raise_beta")
    assert lines.betas == [0.5, 0.5, *[1.0] * 6]
    assert lines.acts == [0, *[1] * 7]
    assert trainer.progress.alarms.acts == (Act("raise_beta", ("kl",), 2, 512, 0.5, 1.0),)
    assert lines.warnings == ["On alarm kl at episode 512: beta 0.5 -> 1"]


def test_an_alarm_that_was_clear_acts_again_and_others_act_meanwhile(tmp_path):
    plan = {2: ("kl",), 3: ("kl", "length"), 6: ("kl",)}
    _, _, lines = train(tmp_path, plan, "raise_beta", alarm_beta_factor=3.0)
    assert lines.betas == [0.5, 0.5, 1.5, *[4.5] * 3, 13.5, 13.5]


def test_an_adaptive_beta_goes_on_from_the_raised_one(tmp_path):
    _, _, lines = train(tmp_path, {2: ("kl",)}, "raise_beta", kl_target=0.3, kl_horizon=1e9)
    assert lines.betas == pytest.approx([0.5, 0.5, *[1.0] * 6], rel=1e-5)


def test_a_rollback_restores_everything_of_the_last_clean_evaluation(tmp_path):
    trainer, _, lines = train(tmp_path, {3: ("length",), 4: ("length",)}, "rollback")
    first, second = trainer.progress.alarms.acts
    assert (first.restored, second.restored) == (2, 2)
    assert lines.betas == [0.5, 0.5, 0.5, 1.0, *[2.0] * 4]
    assert lines.warnings[0] == (
        "On alarm length at episode 768: policy and critic of episode 512 restored, beta 0.5 -> 1"
    )
    assert trainer.progress.rollout == ROLLOUTS
    # Two of eight rollouts were discarded, so as many prompts were taken as in six.
    assert trainer.progress.place == 256 * (ROLLOUTS - 2)
    assert trainer.progress.moments.count == 256 * (ROLLOUTS - 2)


def test_the_restored_state_is_that_of_its_checkpoint_to_the_last_bit(tmp_path):
    """Restored at the end of the run, where nothing follows, and read from the checkpoint."""
    trainer, evaluator, _ = train(tmp_path, {ROLLOUTS: ("length",)}, "rollback")
    states = [
        {name: tensor.clone() for name, tensor in checkpoint._tensors(step, average).items()}
        for step, average in [(trainer.ppo_step, trainer.hooks.average.means)]
    ]
    assert trainer.progress.alarms.restored_after(ROLLOUTS) == ROLLOUTS - 1
    saved = checkpoint.load(tmp_path, ROLLOUTS - 1, trainer.ppo_step, trainer.hooks.average.means)
    # The policy itself has become its average, as at the end of every run.
    for name, tensor in checkpoint._tensors(trainer.ppo_step, trainer.hooks.average.means).items():
        if name != "policy.0.weight":
            assert torch.equal(tensor, states[0][name]), name
    assert saved.place == trainer.progress.place
    assert torch.equal(states[0]["policy.0.weight"], evaluator.seen[ROLLOUTS - 1][0])


def test_the_checkpoint_to_go_back_to_outlasts_newer_ones(tmp_path):
    """Evaluations at 2, 4 and so on; after five more checkpoints the one of 2 is there yet."""
    plan = dict.fromkeys((4, 6), ("length",))
    changes = {"eval_rollouts": 2, "alarm_rollbacks": 1, "episodes": 256 * 6}
    trainer, _, lines = train(tmp_path, plan, "rollback", **changes)
    assert (tmp_path / "rollout-00000002").is_dir()
    assert [act.kind for act in trainer.progress.alarms.acts] == ["rollback", "stop"]
    assert trainer.progress.alarms.restored_after(6) == 2
    assert lines.warnings[-1] == (
        "On alarm length at episode 1,536: PPO stops, policy and critic of episode 512 restored"
    )


@pytest.mark.parametrize("has_best", [True, False])
def test_a_stop_ends_training_and_restores_a_policy_only_where_none_is_best(tmp_path, has_best):
    trainer, evaluator, lines = train(tmp_path, {3: ("kl", "length")}, "stop", has_best=has_best)
    assert trainer.progress.rollout == 3
    assert len(lines.betas) == 3
    (act,) = trainer.progress.alarms.acts
    assert (act.kind, act.restored) == ("stop", None if has_best else 2)
    assert torch.equal(trainer.roles.logits, evaluator.seen[3 if has_best else 2][0])
    assert lines.warnings[0].startswith("On alarms kl, length at episode 768: PPO stops")


PLANS = {
    "raise_beta": {2: ("kl",), 3: ("kl", "length"), 6: ("kl",)},
    "rollback": {3: ("length",), 4: ("length",), 7: ("kl",)},
}


@pytest.mark.parametrize("on_alarm", PLANS)
@pytest.mark.parametrize("after", [3, 6])
def test_a_killed_run_ends_as_one_that_was_not_to_the_last_bit(tmp_path, on_alarm, after):
    """Killed after an act, before the next save, and after two acts."""
    plan = PLANS[on_alarm]
    whole, *_ = train(tmp_path / "whole", plan, on_alarm)
    with pytest.raises(Cut):
        train(tmp_path / "cut", plan, on_alarm, Dying(after))
    resumed, *_ = train(tmp_path / "cut", plan, on_alarm)
    assert resumed.progress == whole.progress
    assert len(whole.progress.alarms.acts) == 3
    states = [
        checkpoint._tensors(trainer.ppo_step, trainer.hooks.average.means)
        for trainer in (resumed, whole)
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_damaged_checkpoint_is_not_gone_back_to(tmp_path):
    trainer, *_ = train(tmp_path, {}, "rollback")
    (tmp_path / "rollout-00000007" / checkpoint.TENSORS).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"to go back to is not usable: state\.safetensors"):
        checkpoint.load(tmp_path, 7, trainer.ppo_step, trainer.hooks.average.means)


def test_a_rollback_needs_checkpoints_and_one_without_a_clean_evaluation_raises_beta(tmp_path):
    with pytest.raises(ValueError, match="needs a folder of checkpoints"):
        train(None, {}, "rollback")
    trainer, *_ = train(tmp_path, {}, "warn", episodes=256)
    response = trainer.hooks.actor
    response.settings = replace(trainer.settings, on_alarm="rollback")
    acted = response.respond(trainer.progress, ("kl",), has_best=True, last=False)
    assert acted.act is not None
    assert (acted.act.kind, acted.act.restored) == ("raise_beta", None)
