import json
from dataclasses import replace

import numpy as np
import pytest

from rlhfctl.errors import DataError, DivergedError
from rlhfctl.evaluation.intervals import paired_bootstrap_mean, wilson
from rlhfctl.evaluation.policies import Responses, compare_policies, samples
from rlhfctl.results.evaluation import EvaluationResult
from rlhfctl.results.io import from_json, to_json
from rlhfctl.results.samples import EvaluationSample

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


def compared_json(policies, **options):
    """Return the part of `eval/metrics.json` that the comparison fills."""
    prompts = len(policies["sft"].texts)
    metrics = to_json(EvaluationResult(prompts, *compare_policies(policies, **options)))
    return {name: value for name, value in metrics.items() if name != "version"}


def test_each_policy_is_described_by_the_means_over_its_responses() -> None:
    metrics = compared_json({"sft": SFT, "ppo": PPO}, ngram=3, seed=0)
    assert metrics["prompts"] == 4
    sft, ppo = metrics["policies"]["sft"], metrics["policies"]["ppo"]
    assert sft["length"] == 3.75
    assert sft["eos_share"] == 0.75
    assert sft["repetition"] == pytest.approx(1 / 4 / 4)  # one of four trigrams, in one of four
    assert sft["kl"] == sft["kl_low"] == sft["kl_high"] == 0
    assert ppo["kl"] == 5
    assert ppo["kl_low"] < 5 < ppo["kl_high"]
    assert ppo["proxy"] == pytest.approx(0.8)
    assert ppo["gold"] == pytest.approx(0.6)


def test_the_win_rate_is_golds_where_gold_is_known() -> None:
    metrics = compared_json({"sft": SFT, "ppo": PPO}, ngram=3, seed=0)
    assert metrics["proxy_win_rate"] == 3.5 / 4
    assert metrics["gold_win_rate"] == metrics["win_rate"] == 2.5 / 4
    assert metrics["win_rate_low"] == metrics["gold_win_rate_low"] == wilson(2.5, 4).low
    assert metrics["win_rate_high"] == wilson(2.5, 4).high
    assert metrics["judge"] == "gold"


def test_scores_by_the_rules_of_the_objective_stand_beside_those_as_given() -> None:
    sft = replace(SFT, objective_score=[0.0, 0.1, -0.2, -1.0])
    ppo = replace(PPO, objective_score=[1.0, 1.1, 0.8, 0.3])
    metrics = compared_json({"sft": sft, "ppo": ppo}, ngram=3, seed=0)
    assert metrics["policies"]["sft"]["proxy"] == pytest.approx(0.05)
    assert metrics["policies"]["sft"]["objective_score"] == pytest.approx(-0.275)
    assert metrics["proxy_win_rate"] == 3.5 / 4
    assert metrics["objective_score_win_rate"] == 1.0
    assert metrics["objective_score_gain"] == pytest.approx(1.075)


def test_the_gain_is_paired_by_prompt() -> None:
    metrics = compared_json({"sft": SFT, "ppo": PPO}, ngram=3, seed=7)
    expected = paired_bootstrap_mean([1.0, 1.0, 1.0, 0.0], seed=7)
    assert metrics["proxy_gain"] == pytest.approx(expected.value)
    assert metrics["proxy_gain_low"] == pytest.approx(expected.low)


def test_without_gold_the_proxy_judges() -> None:
    metrics = compared_json({"sft": replace(SFT, gold=None), "ppo": PPO}, ngram=3, seed=0)
    assert metrics["win_rate"] == metrics["proxy_win_rate"]
    assert metrics["judge"] == "proxy"
    assert not [name for name in metrics if name.startswith("gold")]
    assert "gold" not in metrics["policies"]["sft"]


def test_without_a_reward_model_or_ppo_what_is_there_is_described() -> None:
    alone = compared_json({"sft": replace(SFT, proxy=None, gold=None)}, ngram=3, seed=0)
    assert set(alone) == {"prompts", "policies"}
    assert set(alone["policies"]["sft"]) == {
        *("kl", "kl_low", "kl_high", "length", "eos_share", "repetition", "distinct")
    }


def test_one_prompt_gives_metrics_without_bootstrap_intervals() -> None:
    one = Responses(["a"], kl=[1.0], lengths=[2], ended=[True], proxy=[0.5])
    metrics = compared_json({"sft": one, "ppo": one}, ngram=3, seed=0)
    assert metrics["win_rate"] == 0.5
    assert metrics["proxy_gain"] == 0
    assert "proxy_gain_low" not in metrics


def test_metrics_are_plain_json_numbers() -> None:
    metrics = compared_json({"sft": SFT, "ppo": PPO}, ngram=3, seed=0)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_a_measurement_that_is_not_finite_is_named() -> None:
    with pytest.raises(DivergedError, match="ppo: proxy of 1 responses"):
        compare_policies(
            {"ppo": replace(PPO, proxy=[1.0, float("nan"), 0.0, 0.0])}, ngram=3, seed=0
        )


def test_no_prompts_is_a_fault_of_the_data() -> None:
    with pytest.raises(DataError, match="no held-out prompt"):
        compare_policies({"sft": Responses([], kl=[], lengths=[], ended=[])}, ngram=3, seed=0)


def test_unequal_numbers_of_responses_are_a_bug() -> None:
    one = Responses(["a"], kl=[1.0], lengths=[2], ended=[True])
    with pytest.raises(ValueError, match="same prompts"):
        compare_policies({"sft": SFT, "ppo": one}, ngram=3, seed=0)
    with pytest.raises(ValueError, match="sft: kl must have one value"):
        compare_policies({"sft": replace(SFT, kl=[0.0])}, ngram=3, seed=0)


def test_samples_stand_side_by_side_with_their_scores() -> None:
    rows = samples(["p0", "p1", "p2", "p3"], {"sft": SFT, "ppo": PPO}, limit=2)
    assert len(rows) == 2
    assert to_json(rows[1]) == {
        "prompt": "p1",
        "sft": "d",
        "ppo": "d d",
        "scores": {
            "sft": {"proxy": 0.1, "gold": 0.5, "kl": 0.0},
            "ppo": {"proxy": 1.1, "gold": 0.4, "kl": 4.0},
        },
    }
    assert from_json(EvaluationSample, to_json(rows[1]), "samples.jsonl") == rows[1]
