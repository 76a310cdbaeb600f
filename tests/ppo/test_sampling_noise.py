"""Sampling noise: a function of seed, rollout and episode."""

from rlhfctl.ppo.processes import Processes
from rlhfctl.ppo.rewards import Rewards
from rlhfctl.ppo.rollout import RolloutSampler
from tests.ppo.toy import Bandit, bandit_settings

EPISODES = 64


def responses(rollout, seed=0):
    settings = bandit_settings(rollout_batch_size=EPISODES, seed=seed)
    sampler = RolloutSampler(Bandit(), Rewards([], []), [[1]], settings, Processes())
    return sampler.sample([0] * EPISODES, rollout).sequences.response_lists()


def test_the_same_rollout_of_the_same_seed_is_sampled_again():
    assert responses(rollout=3) == responses(rollout=3)


def test_every_rollout_has_noise_of_its_own():
    assert responses(rollout=0) != responses(rollout=1)


def test_every_seed_has_noise_of_its_own():
    assert responses(rollout=0, seed=0) != responses(rollout=0, seed=1)


def test_every_episode_has_noise_of_its_own():
    assert len({tuple(response) for response in responses(rollout=0)}) > 1
