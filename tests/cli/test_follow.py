"""A run is followed by its files while another process has it."""

import json
import threading
import time

from rlhfctl.cli import follow as followed
from rlhfctl.cli.follow import MetricsTail, follow
from rlhfctl.console import Terminal
from rlhfctl.run.directory import RunDirectory
from rlhfctl.run.monitor import MetricsLog
from rlhfctl.run.progress_file import Phase, ProgressFile, read_phase


def test_a_tail_reads_each_complete_line_once(tmp_path):
    path = tmp_path / "sft.partial.jsonl"
    log, tail = MetricsLog(path), MetricsTail(path)
    assert list(tail.new_lines()) == []
    log.step(1, {"loss": 2.0})
    with path.open("a") as file:
        file.write('{"step": 2')
    ((step, age, metrics),) = tail.new_lines()
    assert (step, metrics) == (1, {"loss": 2.0})
    assert 0 <= age < 60
    with path.open("a") as file:
        file.write(', "time": "2026-01-01T00:00:00+00:00", "loss": null, "kl": 1}\nno json\n')
    assert [(step, metrics) for step, _, metrics in tail.new_lines()] == [(2, {"kl": 1.0})]
    assert list(tail.new_lines()) == []
    MetricsLog(path).step(1, {"loss": 3.0})
    assert [metrics for *_, metrics in tail.new_lines()] == [{"loss": 3.0}]


def test_the_progress_file_has_the_phase_until_the_stage_ends(tmp_path):
    path = tmp_path / ".progress.json"
    file = ProgressFile(path, "rm", "[2/4] Reward model")
    assert read_phase(path) == Phase("rm", "[2/4] Reward model")
    file.start("rm judge", 10, "steps")
    assert read_phase(path) == Phase("rm", "[2/4] Reward model", "rm judge", 10, "steps")
    file.finish()
    assert read_phase(path) == Phase("rm", "[2/4] Reward model")
    path.write_text(json.dumps(["no", "object"]))
    assert read_phase(path) is None
    file.close()
    assert read_phase(path) is None


def test_a_running_stage_is_followed_until_its_end(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(followed, "INTERVAL", 0.02)
    directory = RunDirectory(tmp_path / "small")
    directory.create()
    held, ended = threading.Event(), threading.Event()

    def run():
        with directory.lock():
            progress = ProgressFile(directory.progress, "sft", "[1/4] SFT")
            log = MetricsLog(directory.partial_metrics("sft"))
            progress.start("sft", 10, "steps")
            log.step(5, {"loss": 1.5})
            held.set()
            ended.wait()
            progress.close()

    running = threading.Thread(target=run)
    running.start()
    held.wait()
    followed.print_state(directory, Terminal())
    threading.Timer(0.3, ended.set).start()
    started = time.monotonic()
    follow(directory, Terminal())
    running.join()
    assert time.monotonic() - started < 5
    output = capfd.readouterr()
    assert output.out.splitlines() == [
        "small: running",
        "  [1/4] SFT: running  5/10 steps",
        "    loss 1.5",
        "small: unfinished",
    ]
    assert output.err.splitlines() == ["[1/4] SFT", "sft 0/10 steps"]
    assert [path.name for path in directory.logs.iterdir()] == ["sft.partial.jsonl"]
