"""Strict JSON form of the results."""

import json
import math

import pytest

from rlhfctl.errors import CheckpointError
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import Comparison, EvaluationResult, PolicyMetrics
from rlhfctl.results.io import from_json, read_result, to_json
from rlhfctl.results.json_value import JsonValue
from rlhfctl.results.sweep import SweepPoint
from tests.present import present

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


def test_null_is_a_number_that_was_not_finite():
    json_object = to_json(RESULT) | {"win_rate": None}
    json_object["policies"]["ppo"]["length"] = None
    result = from_json(EvaluationResult, json_object, "eval/metrics.json")

    comparison = present(result.comparison)
    assert math.isnan(present(comparison.win_rate).value)
    assert math.isnan(result.policies["ppo"].length)


def test_whole_numbers_stay_whole():
    json_object = to_json(RESULT)
    json_object["policies"]["ppo"]["length"] = 8
    result = from_json(EvaluationResult, json_object, "eval/metrics.json")

    assert type(to_json(result)["policies"]["ppo"]["length"]) is int


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read"), ("{", "cannot be read"), ("[]", "an object")]
)
def test_a_file_that_holds_no_result_is_named(tmp_path, content, message):
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CheckpointError, match=message) as error:
        read_result(EvaluationResult, path)

    assert error.value.where == str(path)


def test_any_value_is_read_where_a_recipe_chooses_it():
    settings: dict[str, JsonValue] = {"ppo.reward_sources": ["rm", {"url": None}], "seed": 1}
    point = SweepPoint(settings, "points/0", "waiting")

    assert from_json(SweepPoint, json.loads(json.dumps(to_json(point))), "sweep.json") == point
    with pytest.raises(CheckpointError, match="settings: expected dict"):
        from_json(SweepPoint, to_json(point) | {"settings": 3}, "sweep.json")
