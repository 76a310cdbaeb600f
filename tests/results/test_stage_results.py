"""Files of real runs survive the round trip through the result dataclasses."""

import json

import pytest

from rlhfctl.results.evaluation import SCHEMA_VERSION, EvaluationResult
from rlhfctl.results.io import from_json, to_json
from rlhfctl.results.training import (
    HeldOutLine,
    OverOptimisation,
    PPOResult,
    RewardModelResult,
    SFTResult,
)
from rlhfctl.run.directory import HELD_OUT_FILE, METRICS_FILE, OVER_OPTIMISATION_FILE

KINDS = {"sft": SFTResult, "rm": RewardModelResult, "ppo": PPOResult}


@pytest.fixture(params=["tiny_run", "rich_run"])
def finished_run(request):
    """A finished run, plain or with every optional part."""
    run = request.getfixturevalue(request.param)
    run.stage("eval")
    return run


def test_eval_metrics_survive_the_round_trip(finished_run):
    json_object = json.loads((finished_run.root / "eval" / METRICS_FILE).read_text())

    result = from_json(EvaluationResult, json_object, METRICS_FILE)

    assert to_json(result) == json_object
    assert json_object["version"] == SCHEMA_VERSION


@pytest.mark.parametrize("stage", KINDS)
def test_stage_metrics_survive_the_round_trip(finished_run, stage):
    metrics = json.loads(json.dumps(finished_run.metrics[stage]))

    assert to_json(from_json(KINDS[stage], metrics, stage)) == metrics


def test_reward_model_file_survives_the_round_trip(finished_run):
    metrics = json.loads((finished_run.root / "rm" / METRICS_FILE).read_text())

    assert to_json(from_json(RewardModelResult, metrics, METRICS_FILE)) == metrics


def test_held_out_evaluations_survive_the_round_trip(finished_run):
    folder = finished_run.root / "ppo"
    summary = json.loads((folder / OVER_OPTIMISATION_FILE).read_text())
    lines = [json.loads(line) for line in (folder / HELD_OUT_FILE).read_text().splitlines()]

    assert to_json(from_json(OverOptimisation, summary, "summary")) == summary
    assert lines
    assert [to_json(from_json(HeldOutLine, line, HELD_OUT_FILE)) for line in lines] == lines


def test_the_rich_run_has_every_optional_part_of_the_evaluation(rich_run):
    rich_run.stage("eval")
    result = from_json(EvaluationResult, rich_run.metrics["eval"], "eval")

    parts = (result.judges, result.reward_model, result.best_of_n, result.tax, result.drift)
    assert all(part is not None for part in parts)
