"""Best-of-n's win rate: samples of SFT against another of its responses to the same prompt."""

import numpy as np
import pytest

from rlhfctl.evaluation.policies import Responses
from rlhfctl.stages.evaluation.best_of_n import wins_over

SAMPLES = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]])


def sft(**scores):
    return Responses(["a", "b", "c"], [0.0] * 3, [1] * 3, [True] * 3, **scores)


def test_each_sample_is_compared_with_the_response_to_its_own_prompt():
    wins = wins_over(sft(gold=[2.0, 0.0, 9.0]), {"gold": SAMPLES, "proxy": -SAMPLES})
    assert wins is not None
    assert wins.tolist() == [[0.0, 0.5, 1.0], [0.5, 0.5, 1.0]]


@pytest.mark.parametrize("name", ["gold", "true_reward"])
def test_gold_comes_before_the_held_out_reward_model(name):
    both = sft(gold=[2.0, 0.0, 9.0], held_out_rm=[9.0, 9.0, 9.0])
    wins = wins_over(both, {name: SAMPLES})
    assert wins is not None
    assert wins.sum() == (3.5 if name == "gold" else 0.0)


def test_without_a_true_reward_there_is_no_win_rate():
    assert wins_over(sft(gold=[1.0] * 3), {"proxy": SAMPLES}) is None
    assert wins_over(sft(), {"gold": SAMPLES}) is None
