"""Refusals of recipes that cannot be sharded, before any model is loaded."""

import os

import pytest

from rlhfctl.errors import RecipeError, UsageError
from rlhfctl.models import sharding
from rlhfctl.plan.advice import with_settings
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.run.process_group import join_processes
from rlhfctl.stages.ppo import stage as ppo
from rlhfctl.stages.reward_model import stage as reward_model
from rlhfctl.stages.sft import stage as sft


@pytest.fixture(autouse=True)
def several(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")


@pytest.fixture
def fsdp(monkeypatch):
    """Set what a launcher and `join_processes` set."""
    monkeypatch.setenv("RLHFCTL_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")


@pytest.mark.parametrize("stage", [sft, reward_model, ppo], ids=["sft", "rm", "ppo"])
@pytest.mark.parametrize(
    ("run", "words"), [("tiny_full_run", "lora: null"), ("tiny_4bit_run", "quantised base")]
)
def test_a_base_that_is_trained_or_quantised_is_refused(request, tmp_path, fsdp, stage, run, words):
    recipe = request.getfixturevalue(run).recipe
    with pytest.raises(RecipeError, match=words):
        stage.run(recipe, {}, tmp_path, NullMonitor())


def test_fsdp_version_1_is_refused(tiny_run, fsdp, monkeypatch):
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(UsageError, match="FSDP2 only"):
        sharding.is_requested(tiny_run.recipe)


def test_compiled_sampling_from_a_sharded_base_is_refused(tiny_run, fsdp):
    recipe = with_settings(tiny_run.recipe, {"generation.cache_implementation": "static"})
    with pytest.raises(RecipeError, match="is not compiled") as raised:
        sharding.is_requested(recipe)
    assert raised.value.where == "generation.cache_implementation"


def test_adapters_on_a_plain_base_can_be_sharded(tiny_run, fsdp):
    assert sharding.is_requested(tiny_run.recipe)


def test_a_request_for_fsdp_is_hidden_from_the_libraries(tiny_run, fsdp, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("RLHFCTL_USE_FSDP", "")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    join_processes()
    assert "ACCELERATE_USE_FSDP" not in os.environ
    assert not sharding.is_requested(tiny_run.recipe), "one process has no others to share with"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sharding.is_requested(tiny_run.recipe)


def test_without_a_request_nothing_is_sharded(tiny_run):
    assert not sharding.is_requested(tiny_run.recipe)
