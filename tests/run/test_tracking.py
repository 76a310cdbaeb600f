"""Trackers get every figure, and none of them can end a run."""

import json
import threading
import time
from pathlib import Path

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from rlhfctl.run import tracking
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.run.tracking import TrackerMonitor


class FileTracker(GeneralTracker):  # type: ignore[misc]
    """A tracker as accelerate's users write them: it appends to a file."""

    name = "file"
    requires_logging_directory = True

    def __init__(self, run_name, logging_dir):
        super().__init__()
        self.path = f"{logging_dir}/{run_name}.jsonl"

    @property
    def tracker(self):
        return self.path

    def write(self, value):
        with Path(self.path).open("a") as stream:
            stream.write(json.dumps(value) + "\n")

    def store_init_configuration(self, values):
        self.write(values)

    def log(self, values, step=None, **_):
        self.write({"step": step, **values})

    def finish(self):
        self.write("finished")


class Outage(FileTracker):
    name = "outage"

    def log(self, values, step=None, **_):
        raise ConnectionError("the tracker's server is gone")


class Hanging(FileTracker):
    """A tracker whose server answers when the test says so."""

    name = "hanging"
    answered = threading.Event()

    def start(self):
        self.answered.wait()


class Hearing(NullMonitor):
    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    for kind in (FileTracker, Outage, Hanging):
        monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, kind.name, kind)


def track(folder, *names):
    told = Hearing()
    monitor = TrackerMonitor(names, "base-ppo", folder, {"ppo.beta": 0.05, "lora": None}, told)
    monitor.start("ppo", 2, "episodes")
    monitor.step(1, {"kl": 0.5})
    monitor.step(2, {"kl": 0.7})
    monitor.close()
    return told.warnings


def test_every_step_and_the_settings_arrive(tmp_path):
    assert track(tmp_path, "file") == []
    lines = [json.loads(line) for line in (tmp_path / "base-ppo.jsonl").read_text().splitlines()]
    assert lines == [
        {"ppo.beta": 0.05, "lora": "None"},
        {"step": 1, "ppo/kl": 0.5},
        {"step": 2, "ppo/kl": 0.7},
        "finished",
    ]


def test_an_outage_is_told_of_once_and_the_other_trackers_go_on(tmp_path):
    warnings = track(tmp_path, "outage", "file")
    assert len(warnings) == 1
    assert "the tracker's server is gone" in warnings[0]
    assert '"ppo/kl": 0.7' in (tmp_path / "base-ppo.jsonl").read_text()


def test_a_tracker_whose_package_is_missing_is_left_out(tmp_path):
    (warning,) = track(tmp_path, "wandb")
    assert "wandb" in warning


def test_one_that_hangs_is_told_of_once_and_gets_the_metrics_when_it_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "START_TIMEOUT", 0.2)
    (warning,) = track(tmp_path, "hanging")
    assert warning.startswith("tracker hanging has not started within 0.2 s; the run goes on")
    path = tmp_path / "base-ppo.jsonl"
    assert not path.exists()
    Hanging.answered.set()
    limit = time.monotonic() + 10
    while not path.exists() or "finished" not in path.read_text():
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert '"ppo/kl": 0.7' in path.read_text()
