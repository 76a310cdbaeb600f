"""Files are whole or not there, and a digest tells when one has changed."""

import json
import os
import stat

import pytest

from rlhfctl.run.files import digest, sync_folder, write_atomic, write_json


def test_a_written_file_replaces_the_old_one_and_leaves_no_temporary(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    write_atomic(path, "néw")
    assert path.read_bytes() == "néw".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_atomic(tmp_path / "folder", "text")
    assert json.loads(path.read_text()) == {"a": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "folder"]


def test_a_written_file_has_the_permissions_of_an_ordinary_one(tmp_path):
    previous = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", b"x")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_json_keeps_the_order_of_keys(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["b", "a"]


def _folder(root):
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "x").write_text("1")
    (root / "y").write_text("2")
    return root


def test_equal_folders_have_equal_digests_wherever_they_lie(tmp_path):
    assert digest(_folder(tmp_path / "one")) == digest(_folder(tmp_path / "two"))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "sub" / "x").write_text("3"),
        lambda root: (root / "y").rename(root / "z"),
        lambda root: (root / "new").write_text(""),
        lambda root: (root / "y").unlink(),
        lambda root: (root / "y").rename(root / "sub" / "y"),
    ],
    ids=["content", "name", "more", "fewer", "moved"],
)
def test_every_change_changes_the_digest(tmp_path, change):
    root = _folder(tmp_path / "folder")
    before = digest(root)
    change(root)
    assert digest(root) != before


def test_one_flipped_bit_changes_a_files_digest(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(1000))
    before = digest(path)
    path.write_bytes(bytes(500) + b"\x01" + bytes(499))
    assert digest(path) != before


def test_checkpoints_for_resuming_are_no_part_of_a_result(tmp_path):
    root = _folder(tmp_path / "folder")
    before = digest(root)
    (root / "checkpoints").mkdir()
    (root / "checkpoints" / "1").write_text("state")
    assert digest(root) == before
    (root / "sub" / "checkpoints").mkdir()
    (root / "sub" / "checkpoints" / "1").write_text("not at the top")
    assert digest(root) != before


def test_a_folder_with_anything_in_it_can_be_flushed(tmp_path):
    root = _folder(tmp_path / "folder")
    (root / "link").symlink_to(root / "gone")
    sync_folder(root)
