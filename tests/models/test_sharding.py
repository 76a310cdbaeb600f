"""What cannot be spread over processes is refused by name, before any model is loaded."""

import os

import pytest

from rlhfctl.errors import RecipeError, UsageError
from rlhfctl.models import sharding
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.run.process_group import join_processes
from rlhfctl.stages.ppo import stage as ppo
from rlhfctl.stages.reward_model import stage as reward_model
from rlhfctl.stages.sft import stage as sft

WAYS = {
    "FSDP": {"RLHFCTL_USE_FSDP": "true", "FSDP_VERSION": "2"},
    "DeepSpeed": {"RLHFCTL_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
}


@pytest.fixture(autouse=True)
def several(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")


@pytest.fixture
def launch(monkeypatch):
    """Set what a launcher and `join_processes` set."""

    def set_all(way):
        for name, value in WAYS[way].items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.fixture(params=WAYS)
def launched(request, launch):
    launch(request.param)
    return request.param


@pytest.mark.parametrize("stage", [sft, reward_model, ppo], ids=["sft", "rm", "ppo"])
@pytest.mark.parametrize(
    ("run", "words"), [("tiny_full_run", "lora: null"), ("tiny_4bit_run", "quantised base")]
)
def test_a_base_that_is_trained_or_quantised(request, tmp_path, launched, stage, run, words):
    recipe = request.getfixturevalue(run).recipe
    with pytest.raises(RecipeError, match=words):
        stage.run(recipe, {}, tmp_path, NullMonitor())


def test_the_first_version_of_fsdp(tiny_run, launch, monkeypatch):
    launch("FSDP")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(UsageError, match="FSDP2 only"):
        sharding.wanted(tiny_run.recipe)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ZERO_STAGE", "2", "zero_stage: 2"),
        ("OFFLOAD_PARAM_DEVICE", "cpu", "offload_param_device: cpu"),
        ("OFFLOAD_OPTIMIZER_DEVICE", "nvme", "offload_optimizer_device: nvme"),
        ("CONFIG_FILE", "zero.json", "deepspeed_config_file: zero.json"),
    ],
)
def test_what_deepspeed_does_beside_spreading_weights(
    tiny_run, launch, monkeypatch, name, value, words
):
    launch("DeepSpeed")
    monkeypatch.setenv(f"ACCELERATE_DEEPSPEED_{name}", value)
    with pytest.raises(UsageError, match=words):
        sharding.wanted(tiny_run.recipe)


def test_a_configuration_of_deepspeed_that_names_no_stage(tiny_run, launch, monkeypatch):
    launch("DeepSpeed")
    monkeypatch.delenv("ACCELERATE_DEEPSPEED_ZERO_STAGE")
    with pytest.raises(UsageError, match="zero_stage: 2"):
        sharding.wanted(tiny_run.recipe)


def test_adapters_on_a_plain_base_can_be_spread(tiny_run, launched):
    assert sharding.asked_for() == launched
    assert sharding.wanted(tiny_run.recipe)


@pytest.mark.parametrize("way", ["FSDP", "DeepSpeed"])
def test_what_a_launcher_asks_for_is_kept_from_the_libraries(tiny_run, launch, monkeypatch, way):
    launch(way)
    monkeypatch.delenv("WORLD_SIZE")
    theirs, ours = (f"{whose}_USE_{way.upper()}" for whose in ("ACCELERATE", "RLHFCTL"))
    monkeypatch.setenv(ours, "")
    monkeypatch.setenv(theirs, "true")
    join_processes()
    assert theirs not in os.environ
    assert not sharding.wanted(tiny_run.recipe), "one process alone has nothing to spread over"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sharding.wanted(tiny_run.recipe)


def test_what_no_launcher_asks_for_is_not_done(tiny_run):
    assert not sharding.wanted(tiny_run.recipe)
