"""A guarded command ends with its starter, however that ends, and with all that it started."""

import os
import signal
import subprocess
import sys
import time

import pytest

from rlhfctl.run.guardian import guarded

SERVER = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(60)
"""
"""A server with a process of its own."""
STARTER = """
import subprocess, sys, time
from rlhfctl.run.guardian import guarded
subprocess.Popen(guarded([sys.executable, "-c", *sys.argv[1:]]), start_new_session=True)
time.sleep(60)
"""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return state.stdout.strip()[:1] not in ("", "Z")


def child_of(file):
    while not (file.exists() and file.read_text()):
        time.sleep(0.02)
    return int(file.read_text())


def ends(pid):
    for _ in range(500):
        if not alive(pid):
            return True
        time.sleep(0.02)
    return False


def test_a_killed_starter_takes_the_server_and_its_processes_along(tmp_path):
    file = tmp_path / "pid"
    starter = subprocess.Popen([sys.executable, "-c", STARTER, SERVER, str(file)])
    child = child_of(file)
    assert alive(child)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    assert ends(child)


def test_sigterm_ends_the_server_and_its_processes(tmp_path):
    file = tmp_path / "pid"
    process = subprocess.Popen(guarded([sys.executable, "-c", SERVER, str(file)]))
    child = child_of(file)
    process.terminate()
    assert process.wait(10) == signal.SIGTERM
    assert ends(child)


@pytest.mark.parametrize("code", [0, 3])
def test_a_server_that_ends_by_itself_gives_its_code(code):
    command = guarded([sys.executable, "-c", f"raise SystemExit({code})"])
    assert subprocess.run(command, timeout=30, check=False).returncode == code
