"""Gates are bounds on metrics; errors name the gate."""

import math
from dataclasses import replace

import pytest

from rlhfctl.errors import GateError
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import (
    Comparison,
    EvaluationResult,
    PolicyMetrics,
    Tax,
    TaxTask,
)
from rlhfctl.results.gates import check_gates, find_metric, parse_gates, require_gates

PPO = PolicyMetrics(Estimate(6.5), 8.0, 1.0, 0.0, 1.0, gold=Estimate(0.8))
RESULT = EvaluationResult(
    prompts=64,
    policies={"sft": replace(PPO, kl=Estimate(0.0)), "ppo": PPO},
    comparison=Comparison(judge="gold", win_rate=Estimate(0.6), proxy_gain=Estimate(math.nan)),
)


@pytest.mark.parametrize(
    ("name", "bound", "passed"),
    [
        ("win_rate", ">=0.6", True),
        ("win_rate", ">0.6", False),
        ("win_rate", "<= 6e-1", True),
        ("win_rate", "<0.6", False),
        ("policies.ppo.kl", "<=12", True),
        ("policies.sft.kl", " > -1 ", True),
        ("kl", "<6", False),
        ("gold", ">=.5", True),
        ("prompts", ">63", True),
        ("no_such_metric", ">0", False),
        ("judge", ">0", False),
        ("proxy_gain", "<1", False),
        ("policies", ">0", False),
    ],
)
def test_a_gate_holds_or_fails(name, bound, passed):
    (result,) = check_gates(parse_gates({name: bound}), RESULT)
    assert result.passed is passed


@pytest.mark.parametrize(
    "bound", ["", "0.5", "=0.5", "==0.5", ">=", ">=high", ">=0.5 or so", ">=nan"]
)
def test_an_unparsable_bound_is_refused(bound):
    with pytest.raises(ValueError, match=r"win_rate: .* is not a bound"):
        parse_gates({"win_rate": bound})


def test_all_bad_bounds_are_named_at_once():
    with pytest.raises(ValueError) as caught:
        parse_gates({"a": "?", "b": ">1", "c": "!"})
    assert "a: '?'" in str(caught.value)
    assert "c: '!'" in str(caught.value)
    assert "b: " not in str(caught.value)


def test_failed_gates_are_named_with_their_metrics():
    results = check_gates(parse_gates({"win_rate": ">=0.9", "nothing": ">0", "kl": "<9"}), RESULT)
    with pytest.raises(GateError) as caught:
        require_gates(results)
    text = str(caught.value)
    assert "win_rate >= 0.9, but it is 0.6" in text
    assert "nothing > 0, but the evaluation has no such metric" in text
    assert "kl" not in text


def test_met_gates_raise_nothing():
    require_gates(check_gates(parse_gates({"win_rate": ">=0.5"}), RESULT))


def test_a_top_level_metric_takes_precedence_over_the_policys():
    assert find_metric({"kl": 1.0, "policies": {"ppo": {"kl": 2.0}}}, "kl") == 1.0


def test_a_task_name_may_contain_dots():
    task = TaxTask("acc", True, 9, ppo_minus_sft=Estimate(-0.1))
    result = replace(RESULT, tax=Tax({"arc.acc": task}))
    (gate,) = check_gates(parse_gates({"tax.tasks.arc.acc.ppo_minus_sft": ">0"}), result)
    assert gate.value == -0.1
