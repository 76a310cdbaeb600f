"""Folders, memory and locks."""

import subprocess
import sys

import pytest

from rlhfctl.doctor import machine
from rlhfctl.run.directory import RunDirectory

HOLD = """import sys, time
from pathlib import Path
from rlhfctl.run.directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).lock():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_lock_in_use_is_told_from_one_whose_process_was_killed(tmp_path):
    assert machine.check_locks(tmp_path).what == "none"
    run = RunDirectory(tmp_path / "first")
    run.create()
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.root)], stdout=subprocess.PIPE, text=True
    )
    assert held.stdout is not None
    assert held.stdout.readline() == "locked\n"
    busy = machine.check_locks(tmp_path)
    assert (busy.level, busy.what) == ("ok", f"in use by other processes: {run.root}")
    held.kill()
    held.communicate()
    orphaned = machine.check_locks(tmp_path)
    assert orphaned.level == "warn"
    assert f"rm {run.root}/.lock.json" in orphaned.remedy


@pytest.mark.parametrize(("needed", "level"), [(True, "fail"), (False, "warn")])
def test_a_folder_that_cannot_be_written(tmp_path, needed, level):
    (tmp_path / "file").touch()
    runs = next(machine.check_folders(tmp_path / "file" / "runs", needed=needed))
    assert (runs.name, runs.level) == ("runs", level)
    assert "--runs-dir" in runs.remedy


def test_a_full_disk_and_little_memory_are_warned_of(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "free_bytes", lambda _folder: 10**6)
    assert {check.level for check in machine.check_folders(tmp_path, needed=True)} == {"warn"}
    monkeypatch.setattr(machine, "available_memory", lambda: 10**6)
    assert [check.level for check in machine.check_memory()] == ["warn"]


def test_a_containers_limit_bounds_the_memory(monkeypatch, tmp_path):
    free = machine.available_memory()
    assert free is not None
    assert free > 0
    limit, use = tmp_path / "max", tmp_path / "current"
    limit.write_text("3000000\n")
    use.write_text("1000000\n")
    monkeypatch.setattr(machine, "_MEMORY_FILES", ((limit, use),))
    assert machine.available_memory() == 2_000_000
    limit.write_text("max\n")
    assert machine.available_memory() != 2_000_000
