"""The summary table: headline metrics per stage."""

import pytest

from rlhfctl.cli.summary import headline
from rlhfctl.stage_table import EVALUATION, PPO, REWARD_MODEL, STAGES


def test_metrics_are_shown_with_their_intervals():
    metrics = {"accuracy": 0.8, "accuracy_low": 0.75, "accuracy_high": 0.85, "length_accuracy": 0.5}
    metrics["gold_accuracy"] = 0.9
    assert headline(REWARD_MODEL, metrics) == [
        "held-out accuracy 80.0% (75.0% to 85.0%)",
        'baseline "prefer the longer response" 50.0%',
        "accuracy on gold-ordered pairs 90.0%",
    ]


def test_headline_of_an_evaluation_names_the_judges():
    metrics = {
        "policies": {"sft": {"proxy": 0.0}, "ppo": {"proxy": 1.5, "kl": 6.25}},
        "proxy_win_rate": 0.75,
        "win_rate": 0.75,
    }
    assert headline(EVALUATION, metrics) == [
        "PPO win rate over SFT (reward model score) 75.0%",
        "score 0 -> 1.5",
        "KL 6.25 nats per response",
    ]


def test_skipped_minibatches_are_shown_only_if_there_are_any():
    assert headline(PPO, {"score": 1.0, "skipped_minibatches": 0}) == ["score 1"]
    assert headline(PPO, {"skipped_minibatches": 3}) == ["3 minibatches skipped"]


@pytest.mark.parametrize("stage", STAGES)
def test_absent_metrics_give_no_lines(stage):
    assert headline(stage, {}) == []
    assert headline(stage, {"accuracy": None, "eval_loss": None, "kl": None}) == []
