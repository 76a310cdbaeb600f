"""The summary table: headline metrics per stage."""

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rlhfctl.cli.summary import headline, results_table
from rlhfctl.errors import CheckpointError
from rlhfctl.pipeline import StageResult
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import Comparison, JudgeResult, Preferences
from rlhfctl.results.io import to_json
from rlhfctl.results.training import ResultEvaluation
from rlhfctl.run.manifest import StageRecord
from rlhfctl.stage_table import ALL_STAGES
from tests.cli.tiny import METRICS

MANIFEST = Path("runs/small/manifest.json")


def record(stage, result):
    metrics = result if isinstance(result, dict) else to_json(result)
    return StageRecord(stage, {}, {}, {}, metrics, {}, 0, "", 1.0)


def test_metrics_are_shown_with_their_intervals():
    result = replace(METRICS["reward_model"], gold_accuracy=Estimate(0.9))
    assert headline(record("rm", result), MANIFEST) == [
        "held-out accuracy 80.0% (75.0% to 85.0%)",
        'baseline "prefer the longer response" 60.0%',
        "accuracy on gold-ordered pairs 90.0%",
    ]


def test_headline_of_an_evaluation_names_the_judges():
    assert headline(record("eval", METRICS["evaluation"]), MANIFEST) == [
        "PPO win rate over SFT (gold reward) 70.0% (65.0% to 75.0%)",
        "gold reward 0.2 -> 0.6",
        "score 0 -> 1",
        "KL 6 nats per response",
    ]


def test_skipped_minibatches_are_shown_only_if_there_are_any():
    assert headline(record("ppo", METRICS["ppo"]), MANIFEST) == [
        "score 1 in the last rollout",
        "KL in nats per response 6 in the last rollout",
    ]
    skipping = replace(METRICS["ppo"], skipped_minibatches=3, last_rollout={})
    assert headline(record("ppo", skipping), MANIFEST) == ["3 minibatches skipped"]


def test_metrics_of_the_result_stand_beside_those_of_the_last_rollout():
    held_out = ResultEvaluation(64, Estimate(5.0), Estimate(0.8), Estimate(9.0), 1.0, Estimate(0.7))
    last = {"score": 1.0, "objective_score": 0.9, "kl": 6.0}
    result = replace(METRICS["ppo"], last_rollout=last, result=held_out)
    assert headline(record("ppo", result), MANIFEST) == [
        "score 1 in the last rollout, 0.8 on held-out prompts",
        "objective score 0.9 in the last rollout, 0.7 on held-out prompts",
        "KL in nats per response 6 in the last rollout, 5 on held-out prompts",
        "response length in tokens 9 on held-out prompts",
    ]


def test_the_objective_score_is_left_out_where_it_is_the_score():
    held_out = ResultEvaluation(64, Estimate(5.0), Estimate(0.8), Estimate(9.0), 1.0, Estimate(0.8))
    last = {"score": 1.0, "objective_score": 1.0}
    result = replace(METRICS["ppo"], last_rollout=last, result=held_out)
    assert not any("objective" in line for line in headline(record("ppo", result), MANIFEST))


def test_independent_judges_stand_before_the_reward_model():
    def judged(opponent, rate):
        return JudgeResult("function", opponent, Preferences(8, 0, 2, 10, [], Estimate(*rate)))

    judges = {"rule": judged("sft", (0.8, 0.7, 0.9)), "other": judged("reference", (0.6,))}
    proxy = Comparison(proxy_win_rate=Estimate(0.9))
    result = replace(METRICS["evaluation"], judges=judges, comparison=proxy)
    assert headline(record("eval", result), MANIFEST)[:2] == [
        "PPO win rate over SFT (the judge rule) 80.0% (70.0% to 90.0%)",
        "PPO win rate over SFT (reward model score) 90.0%",
    ]


def test_metrics_that_are_not_finite_are_left_out():
    metrics = to_json(METRICS["sft"]) | {"eval_loss": None, "token_accuracy": math.nan}
    assert headline(record("sft", metrics), MANIFEST) == []


@pytest.mark.parametrize("stage", ALL_STAGES)
def test_a_record_of_another_format_names_file_stage_and_field(stage):
    with pytest.raises(CheckpointError) as error:
        headline(record(stage.name, {"figure": 1}), MANIFEST)
    assert error.value.where == f"runs/small/manifest.json, metrics of {stage.name}"


def test_a_stage_of_another_format_says_so_beside_the_others():
    results = [
        StageResult("sft", "skipped", record("sft", to_json(METRICS["sft"]) | {"figure": 1})),
        StageResult("ppo", "done", record("ppo", METRICS["ppo"])),
    ]
    printed = io.StringIO()
    Console(file=printed, width=200).print(results_table(results, MANIFEST))
    text = printed.getvalue()
    assert "runs/small/manifest.json, metrics of sft: figure: unknown field" in text
    assert "Re-run the stage that wrote it" in text
    assert "score 1" in text
