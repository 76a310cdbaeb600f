"""The table of results says what the metrics say, and nothing where there are none."""

import pytest

from rlhfctl.cli.summary import headline


def test_metrics_come_with_their_intervals():
    metrics = {"accuracy": 0.8, "accuracy_low": 0.75, "accuracy_high": 0.85, "length_accuracy": 0.5}
    metrics["gold_accuracy"] = 0.9
    assert headline("rm", metrics) == [
        "held-out accuracy 80.0% (75.0% to 85.0%)",
        '"the longer one wins" 50.0%',
        "accuracy on gold-ordered pairs 90.0%",
    ]


def test_an_evaluation_names_its_judges():
    metrics = {
        "policies": {"sft": {"proxy": 0.0}, "ppo": {"proxy": 1.5, "kl": 6.25}},
        "proxy_win_rate": 0.75,
        "win_rate": 0.75,
    }
    assert headline("eval", metrics) == [
        "PPO's win rate over SFT by its own score 75.0%",
        "score 0 -> 1.5",
        "KL 6.25 nats a response",
    ]


def test_skipped_minibatches_are_told_of_only_when_there_were_some():
    assert headline("ppo", {"score": 1.0, "skipped_minibatches": 0}) == ["score 1"]
    assert headline("ppo", {"skipped_minibatches": 3}) == ["3 minibatches skipped"]


@pytest.mark.parametrize("stage", ["sft", "rm", "ppo", "eval"])
def test_no_metrics_no_words(stage):
    assert headline(stage, {}) == []
    assert headline(stage, {"accuracy": None, "eval_loss": None, "kl": None}) == []
