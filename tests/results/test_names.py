"""Every metric is defined once, and gates name defined metrics only."""

import dataclasses
import json
from pathlib import Path
from typing import get_args, get_origin

import pytest

from rlhfctl.errors import RecipeError
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import EvaluationResult
from rlhfctl.results.io import field_types, without_none
from rlhfctl.results.metric import Source
from rlhfctl.results.names import METRICS, is_known, reference_page
from tests.conftest import tiny_recipe

PAGE = next(
    path
    for name in ("docs/reference/metrics.md",)
    if (path := Path(__file__).parents[2] / name).is_file()
)
BESIDES_METRICS = {"step", "time"}


def declared_names(kind, prefix=""):
    """Yield the dotted name of every number in a result dataclass, `*` for a dictionary's keys."""
    kind = without_none(kind)
    if kind in (float, int, Estimate):
        yield prefix
    elif get_origin(kind) is dict:
        yield from declared_names(get_args(kind)[1], f"{prefix}.*")
    elif get_origin(kind) is list:
        yield from declared_names(get_args(kind)[0], f"{prefix}[]")
    elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = field_types(kind)
        for field in dataclasses.fields(kind):
            key = field.metadata.get("key", field.name)
            inline = field.metadata.get("inline")
            name = prefix if inline else f"{prefix}.{key}".lstrip(".")
            yield from declared_names(hints[field.name], name)


def concrete_names(json_object, prefix=""):
    """Yield the dotted name of every number in a JSON object; numbers in lists of lists excepted."""
    for key, value in json_object.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from concrete_names(value, f"{name}.")
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    yield from concrete_names(item, f"{name}[].")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name


def undefined(source, rows):
    """Return the names in JSON objects that have no definition."""
    names = {name for row in rows for name in concrete_names(row)}
    return sorted(
        name for name in names - BESIDES_METRICS - {"version"} if not is_known(source, name)
    )


def test_no_metric_is_defined_twice():
    for source, metrics in METRICS.items():
        names = [name for metric in metrics for name in metric.names]
        assert len(names) == len(set(names)), source


def test_evaluation_names_are_the_fields_of_the_evaluation_result():
    declared = set(declared_names(EvaluationResult)) - {"version"}
    defined = {metric.name for metric in METRICS[Source.EVAL]}

    def as_pattern(name):
        parts = name.replace("drift.sft", "drift.*").replace("drift.ppo", "drift.*").split(".")
        return ".".join("*" if part.isupper() and len(part) > 1 else part for part in parts)

    assert {as_pattern(name) for name in declared} == {as_pattern(name) for name in defined}


@pytest.mark.parametrize("run_name", ["tiny_run", "rich_run"])
def test_every_metric_of_a_run_is_defined(request, run_name):
    run = request.getfixturevalue(run_name)
    run.stage("eval")
    ppo = json.loads(json.dumps(run.metrics["ppo"]))
    summary = ppo.pop("over_optimisation", {})
    lines = [
        json.loads(line) for line in (run.root / "ppo/held_out.jsonl").read_text().splitlines()
    ]

    assert undefined(Source.SFT, [run.metrics["sft"]]) == []
    assert undefined(Source.RM, [run.metrics["rm"]]) == []
    assert [
        name for name in undefined(Source.PPO, [ppo]) if not is_known(Source.PPO_LOG, name)
    ] == []
    assert undefined(Source.OVER_OPTIMISATION, [summary]) == []
    assert undefined(Source.HELD_OUT, lines) == []
    assert undefined(Source.EVAL, [run.metrics["eval"]]) == []


@pytest.mark.parametrize(
    ("stage", "source"),
    [
        ("sft", Source.SFT_LOG),
        ("rm", Source.RM_LOG),
        ("ppo", Source.PPO_LOG),
        ("eval", Source.EVAL_LOG),
    ],
)
def test_every_logged_metric_of_a_run_is_defined(rich_run, stage, source):
    rich_run.stage("eval")
    assert rich_run.logged[stage]
    assert [name for name in sorted(rich_run.logged[stage]) if not is_known(source, name)] == []


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("win_rte", "win_rate"),
        ("policies.ppo.gld", "policies.ppo.gold"),
        ("judges.endpoint.win_rte", "judges.endpoint.win_rate"),
        ("policies.base.kl", "policies.sft.kl"),
        ("reward_model.calibraton.ece", "reward_model.calibration.ece"),
    ],
)
def test_a_misspelt_gate_is_refused_with_the_closest_name(name, suggestion):
    with pytest.raises(RecipeError, match="did you mean") as error:
        tiny_recipe(f'evaluation.gates={{{name}: ">=0.5"}}')
    assert f"did you mean {suggestion}?" in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "win_rate",
        "win_rate_low",
        "kl",
        "policies.sft.kl",
        "judges.held_out_rm.win_rate",
        "reward_model.overall.accuracy",
        "reward_model.overall.low",
        "drift.ppo.self_bleu",
        "tax.tasks.arc.acc.ppo_minus_sft",
    ],
)
def test_a_defined_metric_can_be_a_gate(name):
    recipe = tiny_recipe(f'evaluation.gates={{{name}: ">=0.5"}}')
    assert recipe.evaluation.gates == {name: ">=0.5"}


def test_the_reference_page_is_generated():
    assert PAGE.read_text(encoding="utf-8") == reference_page(), (
        f"run: python -m rlhfctl.results.names > {PAGE}"
    )
