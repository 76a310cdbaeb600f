"""A result takes the place of an earlier one whole, whatever moment a crash picks."""

import pytest

from rlhfctl.errors import CheckpointError, UsageError
from rlhfctl.run import staging
from rlhfctl.run.directory import RunDirectory
from rlhfctl.run.files import digest
from rlhfctl.run.manifest import Artifact, StageRecord
from rlhfctl.run.resumption import Resumption
from rlhfctl.run.sealed import seal

INPUTS = {"sft": Artifact("sft", "aa")}
PART = {"seed": 0}


@pytest.fixture
def directory(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    return directory


def fill(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "weights").write_text(text)


def recorded(directory):
    output = Artifact.of(directory.stage("sft"), directory.root)
    return StageRecord("sft", {}, {}, {"sft": output}, {}, {}, 0, "", 0.0)


def content(directory):
    return (directory.stage("sft") / "weights").read_text()


def checkpoint(directory):
    folder = directory.partial("sft") / "checkpoints" / "step-1"
    folder.mkdir(parents=True)
    (folder / "state").write_text("1")
    seal(folder, processes=1)


def open_sft(directory, part=PART, inputs=INPUTS, **allowed):
    return staging.open_partial(directory, "sft", part, inputs, Resumption(**allowed)).resuming


def test_a_promoted_result_replaces_the_earlier_one(directory):
    fill(directory.stage("sft"), "old")
    open_sft(directory)
    fill(directory.partial("sft"), "new")
    staging.promote(directory, "sft")
    staging.clean_up(directory, "sft")
    assert content(directory) == "new"
    assert sorted(path.name for path in directory.root.iterdir()) == ["logs", "sft"]


def test_a_checkpoint_that_the_manifest_names_outlives_its_result(directory):
    fill(directory.stage("sft"), "old")
    for name in ("checkpoint-1", "checkpoint-2"):
        (directory.stage("sft") / "checkpoints" / name).mkdir(parents=True)
        (directory.stage("sft") / "checkpoints" / name / "state").write_text(name)
    open_sft(directory)
    fill(directory.partial("sft"), "new")
    staging.promote(directory, "sft")
    named = [Artifact("sft/checkpoints/checkpoint-1", "aa"), Artifact("/elsewhere", "bb")]
    staging.clean_up(directory, "sft", named)
    assert content(directory) == "new"
    (kept,) = (directory.stage("sft") / "checkpoints").iterdir()
    assert (kept / "state").read_text() == "checkpoint-1"


def test_a_crash_before_the_record_brings_the_earlier_result_back(directory):
    fill(directory.stage("sft"), "old")
    record = recorded(directory)
    open_sft(directory)
    fill(directory.partial("sft"), "new")
    staging.promote(directory, "sft")
    staging.recover(directory, "sft", record)
    assert content(directory) == "old"
    assert not directory.replaced("sft").exists()


def test_a_crash_between_the_two_renames_brings_the_earlier_result_back(directory):
    fill(directory.stage("sft"), "old")
    record = recorded(directory)
    directory.stage("sft").rename(directory.replaced("sft"))
    staging.recover(directory, "sft", record)
    assert content(directory) == "old"


def test_a_crash_after_the_record_keeps_the_new_result(directory):
    fill(directory.stage("sft"), "old")
    open_sft(directory)
    fill(directory.partial("sft"), "new")
    staging.promote(directory, "sft")
    staging.recover(directory, "sft", recorded(directory))
    assert content(directory) == "new"
    assert not directory.replaced("sft").exists()


def test_an_interrupted_try_with_checkpoints_is_gone_on_with(directory):
    assert not open_sft(directory)
    checkpoint(directory)
    assert open_sft(directory)
    assert staging.has_checkpoints(directory.partial("sft"))


@pytest.mark.parametrize(
    ("again", "named"),
    [
        ({"part": {"seed": 1}}, "seed changed from 0 to 1"),
        ({"inputs": {"sft": Artifact("sft", "bb")}}, "input sft .* changed"),
        ({"inputs": {}}, "sft is no longer an input"),
    ],
)
def test_one_that_was_made_from_something_else_is_neither_resumed_nor_removed(
    directory, again, named
):
    open_sft(directory)
    checkpoint(directory)
    before = digests(directory)
    with pytest.raises(UsageError, match=named):
        open_sft(directory, **again)
    assert digests(directory) == before
    assert open_sft(directory)
    assert not open_sft(directory, **again, force=True)
    assert list(directory.partial("sft").iterdir()) == []


def digests(directory):
    return [digest(path) for path in (directory.partial("sft"), directory.partial_inputs("sft"))]


def test_one_without_checkpoints_is_not(directory):
    open_sft(directory)
    fill(directory.partial("sft"), "half")
    assert not open_sft(directory)
    assert list(directory.partial("sft").iterdir()) == []


def test_one_whose_settings_were_damaged_is_neither_resumed_nor_removed(directory):
    open_sft(directory)
    checkpoint(directory)
    path = directory.partial_inputs("sft")
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x02]) + content[at + 1 :])
        with pytest.raises(CheckpointError, match=r"settings .* damaged"):
            open_sft(directory)
    path.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        open_sft(directory)
    assert staging.has_checkpoints(directory.partial("sft"))


@pytest.mark.parametrize(
    ("files", "resumable"),
    [
        ([], False),
        (["checkpoints/checkpoint-3/weights"], False),
        (["checkpoints/.rollout-00000003/sealed.json"], False),
        (["checkpoints/checkpoint-3/weights", "checkpoints/checkpoint-3/sealed.json"], True),
        (["checkpoints/rollout-00000003/sealed.json"], True),
        (["checkpoints/judge/checkpoints/checkpoint-3/weights"], False),
        (["checkpoints/judge/checkpoints/checkpoint-3/sealed.json"], True),
        (["checkpoints/responses-sft.jsonl"], True),
        (["metrics.json"], True),
        (["samples.jsonl"], False),
    ],
)
def test_only_what_is_complete_can_be_resumed_from(tmp_path, files, resumable):
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert staging.has_checkpoints(tmp_path) is resumable
