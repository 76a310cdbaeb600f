"""A finished stage stands until its recipe part, an input or its output changes."""

from dataclasses import replace

import pytest

from rlhfctl.run.directory import RunDirectory
from rlhfctl.run.manifest import Artifact, StageRecord
from rlhfctl.run.staleness import changes

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
    assert changes(record, PART, INPUTS, directory) == []


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({**PART, "ppo": {"beta": 0.1, "rm": None}}, "ppo.beta changed from 0.05 to 0.1"),
        ({**PART, "ppo": {"beta": 0.05, "rm": "x"}}, "ppo.rm changed from null to x"),
        ({**PART, "ppo": {"beta": 0.05}}, "ppo.rm changed from null to absent"),
        ({**PART, "seed": 1}, "seed changed from 0 to 1"),
        ({**PART, "seed": "x y\n" * 99}, f"seed changed from 0 to {'x y ' * 19}x..."),
    ],
)
def test_a_changed_key_is_named_with_both_values(record, directory, part, said):
    assert changes(record, part, INPUTS, directory) == [said]


def test_a_section_that_became_null_is_named(record, directory):
    said = changes(record, {**PART, "lora": None}, INPUTS, directory)
    assert said == ["lora changed from given to null"]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"sft": Artifact("sft", "bb")}, "its input sft (sft) has changed"),
        ({}, "sft is no longer an input"),
        ({**INPUTS, "rm": Artifact("rm", "cc")}, "rm is a new input"),
    ],
)
def test_a_changed_input_is_named(record, directory, inputs, said):
    assert changes(record, PART, inputs, directory) == [said]


def test_the_same_input_elsewhere_is_the_same_input(record, directory):
    assert changes(record, PART, {"sft": Artifact("/moved/sft", "aa")}, directory) == []


def test_a_damaged_output_is_named(record, directory):
    (directory.stage("ppo") / "weights").write_text("2")
    assert changes(record, PART, INPUTS, directory) == ["its output ppo is not what it wrote"]


def test_a_missing_output_is_named(record, directory):
    gone = replace(record, outputs={"ppo": Artifact("elsewhere", "aa")})
    assert changes(gone, PART, INPUTS, directory) == ["its output elsewhere is gone"]
