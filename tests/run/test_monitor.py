"""Metrics files hold one JSON object a step; monitors can be joined."""

import json

from rlhfctl.run.monitor import MetricsLog, MultiMonitor, NullMonitor, read_metrics


def test_every_step_is_one_line_with_its_metrics(tmp_path):
    path = tmp_path / "sft.jsonl"
    log = MetricsLog(path)
    log.start("sft", 2, "steps")
    log.step(1, {"loss": 2.5, "tokens": 7})
    log.step(2, {"loss": 1.5})
    log.finish()
    lines = read_metrics(path)
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0]["loss"] == 2.5
    assert lines[0]["tokens"] == 7
    assert lines[0]["time"] < lines[1]["time"] or lines[0]["time"] == lines[1]["time"]


def test_metrics_that_json_has_no_word_for_are_null(tmp_path):
    path = tmp_path / "sft.jsonl"
    MetricsLog(path).step(1, {"loss": float("nan"), "norm": float("inf")})
    line = json.loads(path.read_text(), parse_constant=lambda word: 1 / 0)
    assert line["loss"] is None
    assert line["norm"] is None


def test_a_new_log_starts_empty_and_a_resumed_one_drops_what_is_done_again(tmp_path):
    path = tmp_path / "ppo.jsonl"
    first = MetricsLog(path)
    for step in (10, 20, 30):
        first.step(step, {"kl": step / 10})
    resumed = MetricsLog(path, resume=True)
    resumed.step(20, {"kl": -1})
    resumed.step(30, {"kl": -2})
    assert [(line["step"], line["kl"]) for line in read_metrics(path)] == [
        (10, 1.0),
        (20, -1),
        (30, -2),
    ]
    MetricsLog(path)
    assert read_metrics(path) == []


def test_a_resumed_log_without_a_file_starts_one(tmp_path):
    MetricsLog(tmp_path / "a.jsonl", resume=True).step(1, {"loss": 1.0})
    assert len(read_metrics(tmp_path / "a.jsonl")) == 1


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path):
    path = tmp_path / "sft.jsonl"
    MetricsLog(path).step(1, {"loss": 1.0})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert [line["step"] for line in read_metrics(path)] == [1]


def test_no_file_means_no_metrics(tmp_path):
    assert read_metrics(tmp_path / "none.jsonl") == []


class Recorder(NullMonitor):
    def __init__(self):
        self.heard = []

    def start(self, stage, total, unit):
        self.heard.append((stage, total, unit))

    def step(self, done, metrics):
        self.heard.append((done, dict(metrics)))

    def note(self, message):
        self.heard.append(message)

    def warn(self, message):
        self.heard.append(message)

    def finish(self):
        self.heard.append("finish")


def test_a_tee_tells_all_of_them_everything():
    monitors = [Recorder(), Recorder()]
    tee = MultiMonitor(monitors)
    tee.start("sft", 3, "steps")
    tee.step(1, {"loss": 1.0})
    tee.note("n")
    tee.warn("w")
    tee.finish()
    expected = [("sft", 3, "steps"), (1, {"loss": 1.0}), "n", "w", "finish"]
    assert [monitor.heard for monitor in monitors] == [expected, expected]
