"""A finished stage stands until its recipe part, an input or its output changes."""

from dataclasses import replace

import pytest

from rlhfctl.run.directory import RunDirectory
from rlhfctl.run.manifest import Artifact, StageRecord
from rlhfctl.run.staleness import staleness

PART = {"seed": 0, "lora": {"r": 16}, "ppo": {"beta": 0.05, "rm": None}}
INPUTS = {"sft": Artifact("sft", "aa")}


@pytest.fixture
def directory(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    directory.stage("ppo").mkdir()
    (directory.stage("ppo") / "weights").write_text("1")
    return directory


@pytest.fixture
def record(directory):
    output = Artifact.of(directory.stage("ppo"), directory.root)
    return StageRecord("ppo", PART, INPUTS, {"ppo": output}, {}, {}, 0, "", 0.0)


def test_nothing_changed(record, directory):
    assert staleness(record, PART, INPUTS, directory) == []


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({**PART, "ppo": {"beta": 0.1, "rm": None}}, "ppo.beta changed from 0.05 to 0.1"),
        ({**PART, "ppo": {"beta": 0.05, "rm": "x"}}, "ppo.rm changed from null to x"),
        ({**PART, "ppo": {"beta": 0.05}}, "ppo.rm changed from null to no key"),
        ({**PART, "seed": 1}, "seed changed from 0 to 1"),
        ({**PART, "seed": "x y\n" * 99}, f"seed changed from 0 to {'x y ' * 19}x..."),
    ],
)
def test_a_changed_key_is_named_with_both_values(record, directory, part, said):
    assert staleness(record, part, INPUTS, directory) == [said]


def test_a_key_that_an_earlier_version_had_not_is_at_its_default(record, directory):
    """Otherwise each release with a new key would train finished runs again."""
    defaults = {"lora": {"use_rslora": False}, "generation": {"cache": "dynamic"}}
    lora = {"r": 16, "use_rslora": False}
    part = {**PART, "lora": lora, "generation": {"cache": "dynamic"}}
    assert staleness(record, part, INPUTS, directory, defaults) == []
    part = {**PART, "lora": {**lora, "use_rslora": True}, "generation": {"cache": "static"}}
    assert staleness(record, part, INPUTS, directory, defaults) == [
        "generation.cache changed from dynamic to static",
        "lora.use_rslora changed from False to True",
    ]
    assert "from no key to" in staleness(record, part, INPUTS, directory)[0]


def test_a_section_that_became_null_is_named(record, directory):
    said = staleness(record, {**PART, "lora": None}, INPUTS, directory)
    assert said == ["lora changed from a section to null"]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"sft": Artifact("sft", "bb")}, "input sft (sft) changed"),
        ({}, "sft is no longer an input"),
        ({**INPUTS, "rm": Artifact("rm", "cc")}, "rm is a new input"),
    ],
)
def test_a_changed_input_is_named(record, directory, inputs, said):
    assert staleness(record, PART, inputs, directory) == [said]


def test_the_same_input_elsewhere_is_the_same_input(record, directory):
    assert staleness(record, PART, {"sft": Artifact("/moved/sft", "aa")}, directory) == []


def test_a_damaged_output_is_named(record, directory):
    (directory.stage("ppo") / "weights").write_text("2")
    assert staleness(record, PART, INPUTS, directory) == ["output ppo was modified"]


def test_a_missing_output_is_named(record, directory):
    gone = replace(record, outputs={"ppo": Artifact("elsewhere", "aa")})
    assert staleness(gone, PART, INPUTS, directory) == ["output elsewhere is missing"]
