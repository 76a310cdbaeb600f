"""The command `plan`: its table, its advice, its JSON, and what it refuses."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from rlhfctl.cli.plan_table import as_json, parts
from rlhfctl.plan import advice
from rlhfctl.plan.advice import suggestions
from rlhfctl.plan.planning import make_plan
from rlhfctl.plan.server import Server
from rlhfctl.plan.stage_memory import Planned
from rlhfctl.plan.target import GIB, Target
from rlhfctl.recipe.schema import Recipe
from tests.conftest import tiny_recipe


@pytest.fixture(scope="module")
def plan():
    """Return a real plan of the tiny recipe; it takes seconds."""
    return make_plan(tiny_recipe(), "A100-80")


def test_every_stage_has_a_row_of_memory_and_of_work(plan, capsys):
    Console(width=80).print(*parts(plan, "embedded"), sep="\n")
    shown = capsys.readouterr().out
    assert "79.4 GiB usable of 80.0 GiB" in shown
    memory, _, work = shown.partition("Work")
    for stage in ("sft", "rm", "ppo", "dpo", "eval"):
        assert f"\n{stage} " in memory
        assert f"\n{stage} " in work
    assert memory.count("fits") == 5
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gpu", "RTX5090"), "unknown GPU RTX5090"),
        (("--gpu", "T4", "--probe"), "--probe measures this machine"),
        (("--tflops", "0"), "--tflops 0 is no speed"),
    ],
)
def test_a_device_or_speed_that_cannot_be_is_refused(rlhfctl, arguments, said):
    done = rlhfctl("plan", "base", *arguments)
    assert (done.returncode, said in done.stderr) == (2, True)


def test_the_json_has_verdicts_and_peaks(plan):
    value = json.loads(json.dumps(as_json(plan)))
    assert [stage["stage"] for stage in value["stages"]] == ["sft", "rm", "ppo", "dpo", "eval"]
    for stage in value["stages"]:
        assert stage["verdict"] == "fits"
        assert sum(stage["bytes"].values()) == stage["peak_bytes"] > 0
        assert stage["suggestions"] == []
    assert value["device"]["usable"] < value["device"]["memory"]
    assert value["longest_response"] is None


@pytest.fixture
def advised(monkeypatch):
    """Return a function that gives the advice on a recipe whose every change frees `factor`."""

    def run(stage, place, *, factor=0.5, **ppo):
        recipe = Recipe.model_validate({"ppo": {"gradient_checkpointing": True, **ppo}})
        target = Target("card", "cuda", 24 * GIB)
        architecture: Any = None
        planned = Planned(recipe, architecture, target)
        peak = SimpleNamespace(split=SimpleNamespace(total=int(factor * 24 * GIB)))
        monkeypatch.setattr(advice, "peak_of_stage", lambda _planned, _stage: peak)
        return [dict(one.settings) for one in suggestions(planned, stage, place)]

    return run


def test_where_sampling_takes_the_most_fewer_responses_at_once_are_advised(advised):
    keys = advised("ppo", "sampling", rollout_batch_size=128, minibatch_size=32)
    assert {"generation.batch_size": 32} in keys
    assert {"generation.batch_size": 8} in keys
    assert {"generation.batch_size": 32} in advised("rm", "sampling")
    for stage, place in (("ppo", "update"), ("eval", "sampling"), ("sft", "training")):
        assert not any("generation.batch_size" in change for change in advised(stage, place))


def test_changes_that_do_not_fit_alone_are_advised_together_and_once(advised):
    changes = advised("ppo", "update", factor=2.0, forward_batch_size=16)
    assert changes[-1] == {"ppo.forward_batch_size": 1, "model.quantization": "4bit"}
    assert len(changes) == len({tuple(change.items()) for change in changes})
    alone = advised("eval", "sampling", factor=2.0)
    assert alone[0] == {"evaluation.batch_size": 16}


def test_the_server_of_vllm_is_said(plan, capsys):
    Console(width=200).print(*parts(plan, "embedded"), sep="\n")
    assert "vLLM" not in capsys.readouterr().out
    small = replace(plan, server=Server(8 * GIB, asleep=8 * GIB, weights=9 * GIB, cache=-2 * GIB))
    Console(width=200).print(*parts(small, "embedded"), sep="\n")
    shown = capsys.readouterr().out
    assert "The server takes 8.0 GiB (9.0 GiB of weights) and leaves 71.4 GiB." in shown
    assert "Its share does not hold its weights" in shown
    assert as_json(small)["server"]["memory"] == 8 * GIB
    sleeping = replace(plan, server=Server(8 * GIB, asleep=GIB, weights=4 * GIB, cache=3 * GIB))
    Console(width=200).print(*parts(sleeping, "embedded"), sep="\n")
    text = " ".join(capsys.readouterr().out.split())
    assert "takes 8.0 GiB (4.0 GiB of weights) while it samples" in text
    assert "Between rollouts its weights are in main memory, and ppo has 78.4 GiB." in text
