import json
from dataclasses import replace

import numpy as np
import pytest

from rlhfctl.errors import DataError, DivergedError
from rlhfctl.evaluation.intervals import paired_bootstrap_mean, wilson
from rlhfctl.evaluation.trial import Responses, judge, sample_rows

SFT = Responses(
    texts=["a b c a b c", "d", "e f g", "h"],
    kl=[0.0, 0.0, 0.0, 0.0],
    lengths=[7, 2, 4, 2],
    ended=[True, True, True, False],
    proxy=[0.0, 0.1, -0.2, 0.3],
    gold=[0.5, 0.5, 0.5, 0.5],
)
PPO = Responses(
    texts=["a", "d d", "e", "h i"],
    kl=[2.0, 4.0, 6.0, 8.0],
    lengths=[2, 3, 2, 3],
    ended=np.array([True, True, True, True]),
    proxy=[1.0, 1.1, 0.8, 0.3],
    gold=[0.6, 0.4, 0.5, 0.9],
)


def test_each_policy_is_described_by_the_means_over_its_responses() -> None:
    figures = judge({"sft": SFT, "ppo": PPO}, ngram=3, seed=0)
    assert figures["prompts"] == 4
    sft, ppo = figures["policies"]["sft"], figures["policies"]["ppo"]
    assert sft["length"] == 3.75
    assert sft["eos_share"] == 0.75
    assert sft["repetition"] == pytest.approx(1 / 4 / 4)  # one of four trigrams, in one of four
    assert sft["kl"] == sft["kl_low"] == sft["kl_high"] == 0
    assert ppo["kl"] == 5
    assert ppo["kl_low"] < 5 < ppo["kl_high"]
    assert ppo["proxy"] == pytest.approx(0.8)
    assert ppo["gold"] == pytest.approx(0.6)


def test_the_win_rate_is_golds_where_gold_is_known() -> None:
    figures = judge({"sft": SFT, "ppo": PPO}, ngram=3, seed=0)
    assert figures["proxy_win_rate"] == 3.5 / 4
    assert figures["gold_win_rate"] == figures["win_rate"] == 2.5 / 4
    assert figures["win_rate_low"] == figures["gold_win_rate_low"] == wilson(2.5, 4).low
    assert figures["win_rate_high"] == wilson(2.5, 4).high
    assert figures["judge"] == "gold"


def test_the_gain_is_paired_by_prompt() -> None:
    figures = judge({"sft": SFT, "ppo": PPO}, ngram=3, seed=7)
    expected = paired_bootstrap_mean([1.0, 1.0, 1.0, 0.0], seed=7)
    assert figures["proxy_gain"] == pytest.approx(expected.estimate)
    assert figures["proxy_gain_low"] == pytest.approx(expected.low)


def test_without_gold_the_proxy_judges() -> None:
    figures = judge({"sft": replace(SFT, gold=None), "ppo": PPO}, ngram=3, seed=0)
    assert figures["win_rate"] == figures["proxy_win_rate"]
    assert figures["judge"] == "proxy"
    assert not [name for name in figures if name.startswith("gold")]
    assert "gold" not in figures["policies"]["sft"]


def test_without_a_reward_model_or_ppo_what_is_there_is_described() -> None:
    alone = judge({"sft": replace(SFT, proxy=None, gold=None)}, ngram=3, seed=0)
    assert set(alone) == {"prompts", "policies"}
    assert set(alone["policies"]["sft"]) == {
        *("kl", "kl_low", "kl_high", "length", "eos_share", "repetition", "distinct")
    }


def test_one_prompt_gives_figures_without_bootstrap_intervals() -> None:
    one = Responses(["a"], kl=[1.0], lengths=[2], ended=[True], proxy=[0.5])
    figures = judge({"sft": one, "ppo": one}, ngram=3, seed=0)
    assert figures["win_rate"] == 0.5
    assert figures["proxy_gain"] == 0
    assert "proxy_gain_low" not in figures


def test_figures_are_plain_json_numbers() -> None:
    figures = judge({"sft": SFT, "ppo": PPO}, ngram=3, seed=0)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_a_measurement_that_is_not_finite_is_named() -> None:
    with pytest.raises(DivergedError, match="ppo: proxy of 1 responses"):
        judge({"ppo": replace(PPO, proxy=[1.0, float("nan"), 0.0, 0.0])}, ngram=3, seed=0)


def test_no_prompts_is_a_fault_of_the_data() -> None:
    with pytest.raises(DataError, match="no held-out prompt"):
        judge({"sft": Responses([], kl=[], lengths=[], ended=[])}, ngram=3, seed=0)


def test_unequal_numbers_of_responses_are_a_bug() -> None:
    one = Responses(["a"], kl=[1.0], lengths=[2], ended=[True])
    with pytest.raises(ValueError, match="same prompts"):
        judge({"sft": SFT, "ppo": one}, ngram=3, seed=0)
    with pytest.raises(ValueError, match="sft: kl must have one value"):
        judge({"sft": replace(SFT, kl=[0.0])}, ngram=3, seed=0)


def test_samples_stand_side_by_side_with_their_scores() -> None:
    rows = sample_rows(["p0", "p1", "p2", "p3"], {"sft": SFT, "ppo": PPO}, limit=2)
    assert len(rows) == 2
    assert rows[1] == {
        "prompt": "p1",
        "sft": "d",
        "ppo": "d d",
        "scores": {
            "sft": {"proxy": 0.1, "gold": 0.5, "kl": 0.0},
            "ppo": {"proxy": 1.1, "gold": 0.4, "kl": 4.0},
        },
    }
    assert json.loads(json.dumps(rows)) == rows
