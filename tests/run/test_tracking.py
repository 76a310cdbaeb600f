"""Trackers get every figure, and none of them can end a run."""

import json
import threading
import time

import pytest

from rlhfctl.run import tracking
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.run.trackers import TRACKERS, Address, Conclusion
from rlhfctl.run.tracking import TrackerMonitor


class FileTracker:
    """A tracker that appends to a file."""

    def __init__(self, address):
        self.path = address.folder / f"{address.run}-{address.stage}.jsonl"

    def write(self, value):
        with self.path.open("a") as stream:
            stream.write(json.dumps(value) + "\n")

    def configure(self, settings):
        self.write(settings)

    def log(self, metrics, step):
        self.write({"step": step, **metrics})

    def conclude(self, conclusion):
        self.write(conclusion.metrics)

    def finish(self):
        self.write("finished")


class Outage(FileTracker):
    def log(self, metrics, step):
        raise ConnectionError("the tracker's server is gone")


class Hanging(FileTracker):
    """A tracker whose server answers when the test says so."""

    answered = threading.Event()

    def __init__(self, address):
        self.answered.wait()
        super().__init__(address)


class Hearing(NullMonitor):
    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    for name, kind in {"json": FileTracker, "csv": Outage, "queue": Hanging}.items():
        monkeypatch.setitem(TRACKERS, name, kind)  # the name of an installed module


def track(folder, *names):
    told = Hearing()
    address = Address("rlhfctl", "base", "ppo", folder)
    monitor = TrackerMonitor(names, address, {"ppo.beta": 0.05, "lora": None}, told)
    monitor.start("ppo", 2, "episodes")
    monitor.step(1, {"kl": 0.5})
    monitor.step(2, {"kl": 0.7})
    monitor.conclude(Conclusion({"result.kl": 0.8}))
    monitor.close()
    return told.warnings


def test_every_step_and_the_settings_arrive(tmp_path):
    assert track(tmp_path, "json") == []
    lines = [json.loads(line) for line in (tmp_path / "base-ppo.jsonl").read_text().splitlines()]
    assert lines == [
        {"ppo.beta": 0.05, "lora": "None"},
        {"step": 1, "ppo/kl": 0.5},
        {"step": 2, "ppo/kl": 0.7},
        {"result.kl": 0.8},
        "finished",
    ]


def test_an_outage_is_told_of_once_and_the_other_trackers_go_on(tmp_path):
    warnings = track(tmp_path, "csv", "json")
    assert len(warnings) == 1
    assert "the tracker's server is gone" in warnings[0]
    assert '"ppo/kl": 0.7' in (tmp_path / "base-ppo.jsonl").read_text()


def test_a_tracker_whose_package_is_missing_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (warning,) = track(tmp_path, "wandb")
    assert warning.startswith("tracker wandb is disabled")
    assert warning.endswith("not installed; pip install 'rlhfctl[wandb]'")


def test_one_that_hangs_is_told_of_once_and_gets_the_metrics_when_it_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "START_TIMEOUT", 0.2)
    (warning,) = track(tmp_path, "queue")
    assert warning.startswith("tracker queue has not started within 0.2 s; the run goes on")
    path = tmp_path / "base-ppo.jsonl"
    assert not path.exists()
    Hanging.answered.set()
    limit = time.monotonic() + 10
    while not path.exists() or "finished" not in path.read_text():
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert '"ppo/kl": 0.7' in path.read_text()
