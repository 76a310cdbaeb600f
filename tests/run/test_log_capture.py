"""Output of libraries goes to the log by every route; the user's streams stay clean."""

import os
import subprocess
import sys

PROGRAM = """
import logging, os, subprocess, sys, warnings
from pathlib import Path
from rlhfctl.run.log_capture import capture_logs
try:
    with capture_logs(Path(sys.argv[1]), "a command"):
        print("python stdout")
        print("python stderr", file=sys.stderr)
        os.write(1, b"raw stdout\\n")
        os.write(2, b"raw stderr\\n")
        subprocess.run(["echo", "child stdout"])
        warnings.warn("a warning")
        logging.getLogger("library").warning("a record")
        if len(sys.argv) > 2:
            raise KeyError
except KeyError:
    pass
print("after", file=sys.stdout)
print("after", file=sys.stderr)
"""


def run(log, *more):
    command = [sys.executable, "-c", PROGRAM, str(log), *more]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_everything_written_inside_is_in_the_log_and_nothing_else_is(tmp_path):
    done = run(tmp_path / "log")
    assert (done.stdout, done.stderr) == ("after\n", "after\n")
    log = (tmp_path / "log").read_text()
    for said in (
        "=== a command",
        "python stdout",
        "python stderr",
        "raw stdout",
        "raw stderr",
        "child stdout",
        "a warning",
        "library: a record",
    ):
        assert said in log
    assert "after" not in log


def test_the_streams_come_back_after_an_error_and_the_log_is_appended_to(tmp_path):
    run(tmp_path / "log")
    done = run(tmp_path / "log", "fail")
    assert (done.stdout, done.stderr) == ("after\n", "after\n")
    assert (tmp_path / "log").read_text().count("=== a command") == 2


QUIET = """
from rlhfctl.run.log_capture import quiet_environment
quiet_environment()
from huggingface_hub import constants
print(constants.HF_HUB_DISABLE_TELEMETRY, constants.HF_HUB_DISABLE_PROGRESS_BARS)
"""


def constants(environment):
    command = [sys.executable, "-c", QUIET]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout


def test_telemetry_is_off_unless_the_user_wants_it():
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    assert constants(clean) == "True True\n"
    assert constants({**clean, "HF_HUB_DISABLE_TELEMETRY": "0"}) == "False True\n"
