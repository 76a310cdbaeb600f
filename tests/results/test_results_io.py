"""Strict JSON form of the results."""

import json

import pytest

from rlhfctl.errors import CheckpointError
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import Comparison, EvaluationResult, PolicyMetrics
from rlhfctl.results.io import from_json, to_json

POLICY = PolicyMetrics(
    kl=Estimate(1.0, 0.5, 1.5), length=8.0, eos_share=1.0, repetition=0.1, distinct=0.9
)
RESULT = EvaluationResult(
    prompts=2, policies={"ppo": POLICY}, comparison=Comparison(win_rate=Estimate(0.6, 0.5, 0.7))
)


def test_a_result_survives_a_round_trip_through_json():
    text = json.dumps(to_json(RESULT))

    assert from_json(EvaluationResult, json.loads(text), "eval/metrics.json") == RESULT


def test_comparison_metrics_are_at_the_top_level():
    names = ("win_rate", "win_rate_low", "win_rate_high")
    assert [to_json(RESULT)[name] for name in names] == [0.6, 0.5, 0.7]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"win_rte": 0.5}, "win_rte: unknown field"),
        ({"prompts": "two"}, "prompts: expected int, not 'two'"),
        ({"prompts": True}, "prompts: expected int, not True"),
        ({"version": 0}, "version: expected 1, not 0"),
        ({"policies": {"ppo": {}}}, "policies.ppo.kl: missing field"),
        ({"judge": "people"}, "judge: expected "),
    ],
)
def test_a_malformed_file_is_refused_with_file_and_field(change, message):
    with pytest.raises(CheckpointError) as error:
        from_json(EvaluationResult, to_json(RESULT) | change, "eval/metrics.json")

    assert error.value.what.startswith(message)
    assert error.value.where == "eval/metrics.json"
