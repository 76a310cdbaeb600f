"""A trainer's checkpoint counts when it is whole: cut short or damaged, the one before serves."""

import pytest

from rlhfctl.errors import CheckpointError
from rlhfctl.stages.shared.hf_checkpoints import SEAL, newest_valid, seal
from tests.present import present


@pytest.fixture
def folder(tmp_path):
    for step in (9, 10, 11):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "weights").write_bytes(bytes([step]) * 1000)
        (checkpoint / "state.json").write_text("{}")
    for step in (9, 10):
        seal(tmp_path / f"checkpoint-{step}")
    return tmp_path


def test_one_that_was_cut_short_is_passed_over(folder):
    assert present(newest_valid(folder)).name == "checkpoint-10"
    seal(folder / "checkpoint-11")
    assert present(newest_valid(folder)).name == "checkpoint-11"


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
    assert present(newest_valid(folder)).name == "checkpoint-9"


def test_when_all_are_damaged_it_is_said_rather_than_begun_anew(folder):
    for step in (9, 10):
        (folder / f"checkpoint-{step}" / "weights").write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of 2"):
        newest_valid(folder)


def test_when_the_first_save_was_cut_short_there_is_nothing_to_go_on_from(folder):
    for step in (9, 10):
        (folder / f"checkpoint-{step}" / SEAL).unlink()
    assert newest_valid(folder) is None
    assert newest_valid(folder / "missing") is None
