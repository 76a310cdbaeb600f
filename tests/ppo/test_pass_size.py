"""Rows per forward pass where memory runs out: torch's own error, from an allocation too large."""

import pytest
import torch

from rlhfctl.errors import UsageError
from rlhfctl.maths.sequences import Sequences
from rlhfctl.ppo.pass_size import PassSize, require_single_process
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.run.monitor import NullMonitor
from tests.loaded_roles import loaded, loaded_with_head
from tests.ppo.toy import bandit_settings
from tests.ppo.whole import EPISODES, PROMPTS, close, trained


def exhaust_memory() -> None:
    """Ask for more memory than any machine has."""
    torch.empty(2**60, dtype=torch.uint8)


def test_is_halved_until_the_work_fits_and_stays_so():
    said: list[str] = []
    size = PassSize(24, automatic=True, say=said.append)

    def work(rows: int) -> int:
        if rows > 7:
            exhaust_memory()
        return rows

    assert size.run(work) == 6
    assert size.run(lambda rows: rows) == 6
    assert size.rows == 6
    assert said[0].startswith("out of memory with 24 rows per forward pass; going on with 12")
    assert len(said) == 2


@pytest.mark.parametrize(("automatic", "tried"), [(False, [4]), (True, [4, 2, 1])])
def test_the_error_is_torchs_own_where_nothing_is_left_to_halve(automatic, tried):
    rows_tried = []

    def work(rows: int) -> None:
        rows_tried.append(rows)
        exhaust_memory()

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        PassSize(4, automatic=automatic, say=lambda _text: None).run(work)
    assert rows_tried == tried


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def work(_rows: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        PassSize(4, automatic=True).run(work)


def test_several_processes_are_refused():
    class Two:
        count = 2

    with pytest.raises(UsageError, match="one process, and there are 2"):
        require_single_process(Two())  # type: ignore[arg-type]


class Cramped:
    """Memory for three episodes in a training pass, for five in any other."""

    def __init__(self, roles):
        self.roles = roles
        self.batches: dict[str, set[int]] = {"training": set(), "scoring": set(), "sampling": set()}

    def __getattr__(self, name):
        return getattr(self.roles, name)

    def _room(self, kind, rows):
        if rows > (3 if kind == "training" else 5):
            exhaust_memory()
        self.batches[kind].add(rows)

    def generate(self, prompts, seeds):
        self._room("sampling", len(prompts))
        return self.roles.generate(prompts, seeds)

    def log_probs(self, role, batch, *, training=False, **rest):
        self._room("training" if training else "scoring", len(batch))
        return self.roles.log_probs(role, batch, training=training, **rest)

    def values(self, batch, *, training=False):
        # Policy gradients of the same chunk are there already when the critic runs out.
        self._room("training" if training else "scoring", len(batch))
        return self.roles.values(batch, training=training)

    def log_probs_and_values(self, batch, *, training=False):
        self._room("training" if training else "scoring", len(batch))
        return self.roles.log_probs_and_values(batch, training=training)


def test_a_rollout_and_its_gradients_are_those_of_whole_batches(tiny_run):
    roles = loaded(tiny_run)
    cramped = Cramped(roles)
    (whole,), whole_steps, _ = trained(roles)
    (split,), split_steps, _ = trained(cramped, auto_batch=True)  # type: ignore[arg-type]
    assert split.sequences.ids.tolist() == whole.sequences.ids.tolist()
    assert torch.allclose(split.log_probs, whole.log_probs, atol=1e-5)
    for role, (step,) in split_steps.items():
        close(step.gradient, whole_steps[role][0].gradient)
    # The check for finite numbers after an update scores as many episodes as training passes have.
    assert cramped.batches == {"training": {2}, "scoring": {4, 2}, "sampling": {4}}
    assert EPISODES == 8


def test_responses_sampled_a_few_at_a_time_are_those_of_a_whole_rollout(tiny_run):
    roles = loaded(tiny_run)
    sizes = []

    class Counted:
        def __getattr__(self, name):
            return getattr(roles, name)

        def generate(self, prompts, seeds):
            sizes.append(len(prompts))
            return roles.generate(prompts, seeds)

    def sampled(at_once):
        settings = bandit_settings(rollout_batch_size=8, sampling_batch_size=at_once)
        trainer = PPOTrainer(Counted(), PROMPTS, settings, NullMonitor())
        return trainer.sampler.sample([0, 1, 0, 1, 1, 0, 0, 1], 0).sequences.response_lists()

    whole = sampled(None)
    assert sampled(3) == whole == sampled(100)
    assert sizes == [8, 3, 3, 2, 8]


@pytest.mark.parametrize("critic", ["adapter", "head"])
def test_the_longest_episodes_are_tried_with_memory_for_the_moments(tiny_run, critic):
    cramped = Cramped((loaded_with_head if critic == "head" else loaded)(tiny_run))
    settings = bandit_settings(forward_batch_size=8, auto_batch=True, critic=critic)
    trainer = PPOTrainer(cramped, PROMPTS, settings, NullMonitor())
    longest = Sequences.from_lists(PROMPTS, [[300] * 9] * EPISODES, cramped.pad_token_id)
    trainer.ppo_step.try_longest(longest)
    assert trainer.ppo_step.pass_size.rows == 2
    assert trainer.sampler.pass_size.rows == 2
    assert all(w.grad is None for weights in trainer.ppo_step.weights.values() for w in weights)
