"""A run folder's paths, and the lock that one process holds."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlhfctl.errors import EnvironmentFault, LockedError, UnsafeError
from rlhfctl.run.directory import RunDirectory, linked_run
from tests.present import present

HOLDER = """
import sys, time
from pathlib import Path
from rlhfctl.run.directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def directory(tmp_path):
    directory = RunDirectory(tmp_path / "runs" / "one")
    directory.create()
    return directory


@pytest.fixture
def holder(directory):
    command = [sys.executable, "-c", HOLDER, str(directory.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert present(process.stdout).readline() == "held\n"
        yield process
        process.kill()


def test_the_layout_is_the_documented_one(directory):
    names = {
        directory.recipe: "recipe.yaml",
        directory.manifest: "manifest.json",
        directory.report: "report.html",
        directory.log_file: "logs/rlhfctl.log",
        directory.metrics("sft"): "logs/sft.jsonl",
        directory.stage("rm"): "rm",
        directory.partial("rm"): ".rm.partial",
    }
    for path, name in names.items():
        assert path == directory.root / name
    assert directory.name == "one"


def test_a_second_process_is_told_who_holds_the_run(directory, holder):
    with pytest.raises(LockedError) as caught, directory.lock():
        pass
    record = json.loads((directory.root / ".lock.json").read_text())
    assert f"process {holder.pid} on {record['host']}, since {record['since']}" in str(caught.value)
    assert str(directory.root) in str(caught.value)


def test_a_killed_holder_leaves_the_run_free(directory, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with directory.lock():
        pass


def test_a_lock_is_free_after_its_block_and_after_an_error_in_it(directory):
    with pytest.raises(RuntimeError), directory.lock():
        raise RuntimeError
    with directory.lock():
        assert (directory.root / ".lock.json").exists()
    assert not (directory.root / ".lock.json").exists()


def test_a_run_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="--runs-dir"):
        RunDirectory(Path(tmp_path / "file" / "run")).create()


def test_latest_leads_to_the_run_that_began_last(directory):
    runs = directory.root.parent
    assert linked_run(runs) is None
    directory.link_latest()
    other = RunDirectory(runs / "two")
    other.create()
    other.link_latest()
    assert linked_run(runs) == "two"
    assert str((runs / "latest").readlink()) == "two"
    assert sorted(path.name for path in runs.iterdir()) == ["latest", "one", "two"]


def test_a_folder_named_latest_is_left_alone(directory):
    (directory.root.parent / "latest").mkdir()
    directory.link_latest()
    assert not (directory.root.parent / "latest").is_symlink()


def test_a_link_that_was_led_elsewhere_is_replaced_and_nothing_is_written_there(
    directory, tmp_path
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (directory.root.parent / "latest").symlink_to(elsewhere)
    directory.link_latest()
    assert linked_run(directory.root.parent) == "one"
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("target", ["../elsewhere", "/tmp", "..", ".", "latest", "away"])
def test_a_link_out_of_the_runs_is_not_followed(directory, target):
    runs = directory.root.parent
    (runs / "away").symlink_to("/tmp")
    (runs / "latest").symlink_to(target)
    with pytest.raises(UnsafeError, match="not to a run beside it"):
        linked_run(runs)


def test_the_runs_of_a_sweep_have_no_link(directory):
    (directory.root.parent / "sweep.json").write_text("{}")
    directory.link_latest()
    assert not (directory.root.parent / "latest").is_symlink()


def test_the_log_of_a_refused_launch_is_removed_with_its_folder_and_a_runs_is_kept(directory):
    directory.launch_log.write_text("x")
    directory.discard_launch_log()
    assert not directory.root.exists()
    directory.create()
    directory.launch_log.write_text("x")
    directory.recipe.write_text("x")
    directory.discard_launch_log()
    assert directory.launch_log.exists()
