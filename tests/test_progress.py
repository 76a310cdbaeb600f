"""Progress in real pseudo-terminals, read from the screen that an emulator makes of the output."""

import os
import pty
import re
import struct
import termios
import time
from fcntl import ioctl

import pytest

from rlhfctl import activity, progress
from rlhfctl.console import Terminal
from rlhfctl.progress import View
from rlhfctl.stage_table import ALL_STAGES

METRICS = {"score": 0.612, "kl": 1.7, "held_out_true_reward": 1.2, "reward": 0.4}
REST = {"response_length": 41.2, "episodes_per_second": 3.1, "memory_bytes": 3 * 2**30}


class Screen:
    """A terminal of some size: a pseudo-terminal, and what its screen shows."""

    def __init__(self, columns, lines):
        pyte = pytest.importorskip("pyte")
        self.main, self.terminal = pty.openpty()
        ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        os.set_blocking(self.main, False)
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.written = b""

    def lines(self):
        """Lines on the screen that are not empty, once what was written has arrived."""
        time.sleep(0.35)  # the live lines are drawn four times a second
        self.read()
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def read(self):
        try:
            while part := os.read(self.main, 65536):
                self.written += part
                self.stream.feed(part)
        except BlockingIOError:
            return


@pytest.fixture
def screen(request, monkeypatch):
    for name in ("CI", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    shown = Screen(*getattr(request, "param", (80, 24)))
    monkeypatch.setenv("RLHFCTL_TERMINAL", str(shown.terminal))
    yield shown
    os.close(shown.terminal)
    os.close(shown.main)


@pytest.mark.parametrize("screen", [(80, 24), (200, 50)], indirect=True)
def test_two_lines_have_bar_count_and_time_and_the_metrics_that_fit(screen):
    with View(Terminal()) as view:
        view.begin("[3/4] PPO")
        activity.publish("downloading model", 120_000_000, 988_000_000, activity.BYTES)
        (spinning,) = screen.lines()
        view.start("ppo", 4096, "episodes")
        view.step(0, METRICS | REST)
        view.step(512, {})
        activity.publish("generating", 200, 512)
        bar, metrics = screen.lines()
        view.note("a line above")
        above, *still = screen.lines()
    assert re.fullmatch(r"\S \[3/4\] PPO  downloading model 120 MB of 988 MB  0:0\d", spinning)
    assert re.fullmatch(r"\[3/4\] PPO  [━╸╺]{8,}[━╸╺ ]*  512/4,096 episodes  ETA 0:0\d", bar)
    shown = "generating 200/512  score 0.612  KL 1.7  held-out 1.2  reward 0.4"
    rest = "  response length 41.2  episodes/s 3.1  memory 3.00 GiB"
    wide = screen.screen.columns == 200
    assert metrics == (shown + rest if wide else shown)
    assert above == "a line above"
    assert len(still) == 2
    assert screen.lines() == ["a line above"], "the live lines go when the command ends"
    assert not screen.screen.cursor.hidden


@pytest.mark.parametrize("screen", [(40, 24), (24, 10)], indirect=True)
def test_a_narrow_terminal_leaves_parts_out_and_cuts_none(screen):
    with View(Terminal()) as view:
        view.begin("[2/4] Reward model")
        view.start("rm", 480, "steps")
        view.step(120, {"loss": 0.657, "accuracy": 0.61})
        bar, metrics = screen.lines()
    assert bar.startswith("[2/4] Reward model")
    assert bar.endswith("120/480") or bar == "[2/4] Reward model"
    assert metrics in {"loss 0.657  accuracy 0.61", "loss 0.657"}


@pytest.mark.parametrize("stage", ALL_STAGES, ids=lambda stage: stage.name)
def test_the_longest_lines_fit_80_columns(screen, stage):
    with View(Terminal()) as view:
        view.begin(f"[4/4] {stage.title}")
        view.start(f"{stage.name} reward model", 100_000, "responses")
        view.step(99_999, dict.fromkeys(stage.progress, 12345.678))
        bar, metrics = screen.lines()
    assert "99,999/100,000" in bar
    assert "ETA" in bar
    assert "━" in bar
    assert re.search(r" 12,346$| GiB$", metrics)


def test_no_color_writes_no_colour(screen, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    with View(Terminal()) as view:
        view.begin("[1/4] SFT")
        view.start("sft", 10, "steps")
        view.step(5, {"loss": 1.0})
        assert len(screen.lines()) == 2
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]", screen.written)


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("CI", "1")])
def test_a_terminal_without_cursor_control_gets_plain_lines(screen, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with View(Terminal()) as view:
        view.begin("[1/4] SFT")
        view.start("sft", 10, "steps")
        view.step(5, {"loss": 1.0})
        view.finish()
    assert screen.lines() == ["sft 0/10 steps", "sft 10/10 steps  loss 1  in 0 s"]
    assert b"\x1b" not in screen.written


def test_piped_output_has_a_line_every_few_seconds(capfd, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    with View(Terminal()) as view:
        view.begin("[1/4] SFT")
        activity.publish("loading model", 1_000_000, None, activity.BYTES)
        view.start("sft", 10, "steps")
        view.step(5, {"loss": 1.0})
        activity.publish("scoring", 1, 2)
        monkeypatch.setattr(progress, "PLAIN_INTERVAL", 100.0)
        view.step(6, {"loss": 1.0})
        activity.publish("scoring", 2, 2)
    assert capfd.readouterr().err.splitlines() == [
        "[1/4] SFT  loading model 1 MB",
        "sft 0/10 steps",
        "sft 5/10 steps  loss 1",
        "sft 5/10 steps  scoring 1/2",
    ]


@pytest.mark.parametrize("stage", ALL_STAGES, ids=lambda stage: stage.name)
def test_progress_lines_fit_80_columns(capfd, stage):
    metrics = dict.fromkeys(stage.progress, 12345.678)
    with View(Terminal()) as view:
        view.start(f"{stage.name} judge", 100_000, "responses")
        view.step(99_999, metrics)
        view.finish()
    lines = capfd.readouterr().err.splitlines()
    assert max(map(len, lines)) <= 80
    assert "12,346" in lines[-1]


def test_the_time_left_is_that_of_the_rate_since_the_first_report(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown = progress._Progress(phase="sft", total=100)
    assert shown.seconds_left() is None
    shown.report(40)  # resumed there
    assert shown.seconds_left() is None
    now[0] += 10
    shown.report(50)
    assert shown.seconds_left() == 50
    now[0] += 7
    assert shown.seconds_left() == 43
