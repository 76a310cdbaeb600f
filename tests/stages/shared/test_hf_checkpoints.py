"""A trainer's checkpoint counts when it is whole: cut short or damaged, the one before serves."""

import random

import pytest

from rlhfctl.errors import CheckpointError
from rlhfctl.run.sealed import SEAL, seal
from rlhfctl.stages.shared.hf_checkpoints import newest_valid
from tests.pipeline.small_stages import Listener
from tests.present import present
from tests.stages.shared.small_trainers import trainer_of


@pytest.fixture
def folder(tmp_path):
    for step in (9, 10, 11):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "weights").write_bytes(bytes([step]) * 1000)
        (checkpoint / "state.json").write_text("{}")
    for step in (9, 10):
        seal(tmp_path / f"checkpoint-{step}", processes=1)
    return tmp_path


def test_one_that_was_cut_short_is_passed_over(folder):
    assert present(newest_valid(folder, Listener())).name == "checkpoint-10"
    seal(folder / "checkpoint-11", processes=1)
    assert present(newest_valid(folder, Listener())).name == "checkpoint-11"


@pytest.mark.parametrize("file", ["weights", "state.json", SEAL])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_one_is_passed_over(folder, file, damage):
    path = folder / "checkpoint-10" / file
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 0x01
        path.write_bytes(content)
    listener = Listener()
    assert present(newest_valid(folder, listener)).name == "checkpoint-9"
    (warning,) = listener.warnings if damage != "remove" or file != SEAL else [""]
    named = f"checkpoint-10: {file}" in warning and "1 steps are lost" in warning
    assert named or not warning


def test_every_byte_of_the_seal_counts(folder):
    path = folder / "checkpoint-10" / SEAL
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x02]) + content[at + 1 :])
        assert present(newest_valid(folder, Listener())).name == "checkpoint-9", content[at:][:20]


def test_when_all_are_damaged_it_is_said_rather_than_begun_anew(folder):
    for step in (9, 10):
        (folder / f"checkpoint-{step}" / "weights").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"no checkpoint .* checkpoint-10: weights .* checkpoint-9: weights"
    ):
        newest_valid(folder, Listener())


def test_when_the_first_save_was_cut_short_there_is_nothing_to_go_on_from(folder):
    for step in (9, 10):
        (folder / f"checkpoint-{step}" / SEAL).unlink()
    assert newest_valid(folder, Listener()) is None
    assert newest_valid(folder / "missing", Listener()) is None


def test_any_byte_of_any_file_of_a_real_checkpoint_counts(tmp_path):
    trainer_of("sft", tmp_path).train()
    checkpoints, places = tmp_path / "checkpoints", random.Random("bytes")
    newest = checkpoints / "checkpoint-6"
    files = [path for path in newest.rglob("*") if path.is_file()]
    assert len(files) >= 8
    for path in files:
        content = path.read_bytes()
        at = places.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x04]) + content[at + 1 :])
        listener = Listener()
        assert present(newest_valid(checkpoints, listener)).name == "checkpoint-5"
        assert f"checkpoint-6: {path.relative_to(newest)}" in listener.warnings[0]
        path.write_bytes(content)
    assert present(newest_valid(checkpoints, Listener())).name == "checkpoint-6"
