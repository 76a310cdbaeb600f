"""From responses to final scores, rewards and advantages."""

import torch

from rlhfctl.maths.advantages import shape_rewards
from rlhfctl.maths.statistics import RunningMoments
from rlhfctl.ppo.processes import Processes
from rlhfctl.ppo.rewards import Rewards
from rlhfctl.ppo.rollout import RolloutSampler, estimate_advantages, final_scores
from tests.ppo.toy import Bandit, bandit_settings

ENDED = torch.tensor([True, False, True])
RAW = torch.tensor([9.0, 9.0, -0.5])
LENGTHS = torch.tensor([3, 8, 5])


class BanditScores:
    name = "bandit"

    def scores(self, batch, rows):
        return Bandit().scores(batch)


def test_an_unended_response_has_its_score_replaced_however_high_it_was():
    scores, _ = final_scores(
        RAW,
        ENDED,
        LENGTHS,
        bandit_settings(missing_eos_score=-1.0, score_clip=5.0),
        RunningMoments(),
    )
    assert scores.tolist() == [5.0, -1.0, -0.5]


def test_without_that_setting_the_score_stays():
    scores, _ = final_scores(
        RAW, ENDED, LENGTHS, bandit_settings(score_clip=None), RunningMoments()
    )
    assert scores.tolist() == [9.0, 9.0, -0.5]


def test_a_response_that_is_too_short_has_its_score_replaced_as_well():
    scores, _ = final_scores(
        RAW,
        ENDED,
        LENGTHS,
        bandit_settings(missing_eos_score=-1.0, min_response_length=4),
        RunningMoments(),
    )
    assert scores.tolist() == [-1.0, -1.0, -0.5]


def test_replaced_scores_enter_no_running_statistics():
    _, moments = final_scores(
        RAW,
        ENDED,
        LENGTHS,
        bandit_settings(missing_eos_score=-1.0, score_normalization="running"),
        RunningMoments(),
    )
    assert moments.count == 2
    assert moments.mean == 4.25


def test_the_metrics_have_the_score_as_given_and_as_maximised():
    settings = bandit_settings(rollout_batch_size=8)
    sampler = RolloutSampler(
        Bandit(), Rewards([BanditScores()], [1.0]), [[1]], settings, Processes()
    )
    episodes = sampler.score(sampler.sample([0] * 8, 0), [0] * 8)
    replaced = torch.where(torch.arange(8) < 2, -1.0, episodes.model_scores)
    shaped = shape_rewards(replaced, episodes.token_kl, episodes.mask, 0.0)
    estimate = estimate_advantages(shaped, episodes.values, episodes.mask, settings)
    metrics = episodes.with_advantages(replaced, shaped, estimate, 0.0).metrics()
    assert metrics["score"] == float(episodes.model_scores.mean())
    assert metrics["objective_score"] == float(replaced.mean()) == metrics["reward"]


def test_returns_do_not_depend_on_the_whitening_of_advantages():
    rollouts = []
    for whitening in (True, False):
        settings = bandit_settings(whiten_advantages=whitening, rollout_batch_size=32)
        rewards = Rewards([BanditScores()], [1.0])
        sampler = RolloutSampler(Bandit(), rewards, [[1]], settings, Processes())
        episodes = sampler.score(sampler.sample([0] * 32, 0), [0] * 32)
        shaped = shape_rewards(episodes.model_scores, episodes.token_kl, episodes.mask, 0.1)
        rollouts.append(estimate_advantages(shaped, episodes.values, episodes.mask, settings))
    torch.testing.assert_close(rollouts[0].returns, rollouts[1].returns)
    assert abs(rollouts[0].advantages.mean()) < 1e-6
    assert not torch.allclose(rollouts[0].advantages, rollouts[1].advantages)
