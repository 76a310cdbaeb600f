"""A run folder's paths, and the lock that one process holds."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlhfctl.errors import EnvironmentFault, LockedError
from rlhfctl.run.directory import RunDirectory
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
