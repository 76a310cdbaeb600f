"""What FSDP cannot spread is refused by name, in every stage and before any model is loaded."""

import os

import pytest

from rlhfctl.errors import RecipeError, UsageError
from rlhfctl.models import sharding
from rlhfctl.run.group import join_processes
from rlhfctl.run.monitor import QuietMonitor
from rlhfctl.stages import ppo, reward, sft


@pytest.fixture(autouse=True)
def launched(monkeypatch):
    for name, value in {"RLHFCTL_USE_FSDP": "true", "WORLD_SIZE": "2", "FSDP_VERSION": "2"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("stage", [sft, reward, ppo], ids=["sft", "rm", "ppo"])
@pytest.mark.parametrize(
    ("run", "words"), [("tiny_full_run", "lora: null"), ("tiny_4bit_run", "quantised base")]
)
def test_a_base_that_is_trained_or_quantised(request, tmp_path, stage, run, words):
    recipe = request.getfixturevalue(run).recipe
    with pytest.raises(RecipeError, match=words):
        stage.run(recipe, {}, tmp_path, QuietMonitor())


def test_the_first_version_of_fsdp(tiny_run, monkeypatch):
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(UsageError, match="FSDP2 only"):
        sharding.wanted(tiny_run.recipe)


def test_adapters_on_a_plain_base_can_be_spread(tiny_run):
    assert sharding.wanted(tiny_run.recipe)


def test_what_a_launcher_asks_for_is_kept_from_the_libraries(tiny_run, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("RLHFCTL_USE_FSDP", "")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    join_processes()
    assert "ACCELERATE_USE_FSDP" not in os.environ
    assert not sharding.wanted(tiny_run.recipe), "one process alone has nothing to spread over"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sharding.wanted(tiny_run.recipe)


def test_what_no_launcher_asks_for_is_not_done(tiny_run, monkeypatch):
    monkeypatch.setenv("RLHFCTL_USE_FSDP", "")
    assert not sharding.wanted(tiny_run.recipe)
