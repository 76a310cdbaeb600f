"""Nothing that a model or a file name says can act on the user's terminal."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from rlhfctl.console import clock, duration, format_metric, metrics_line, safe

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b-\u200f]")


def shown(part):
    stream = io.StringIO()
    Console(file=stream, markup=True, emoji=True, width=200).print(part)
    return stream.getvalue()


@given(st.text())
def test_no_text_reaches_a_terminal_with_its_controls(text):
    table = Table()
    table.add_column(safe(text))
    table.add_row(safe(text))
    assert not CONTROL.search(shown(safe(text)) + shown(table))


@pytest.mark.parametrize(
    "text", ["[/foo]", "[/]", "[bold]x", "[link=http://x]y[/link]", ":smile:", "[", "\\[b]"]
)
def test_markup_in_text_is_text(text):
    assert shown(safe(text)) == f"{text}\n"


def test_an_escape_sequence_is_spelt_out():
    assert shown(safe("\x1b]52;c;eA==\x07")) == "\\u001b]52;c;eA==\\u0007\n"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("loss", 1.23456, "1.23"),
        ("learning_rate", 0.00012345, "0.000123"),
        ("episodes", 51200, "51,200"),
        ("tokens_per_second", 12345.6, "12,346"),
        ("memory_bytes", 3 * 2**30, "3.00 GiB"),
        ("loss", float("nan"), "nan"),
        ("loss", None, "none"),
    ],
)
def test_metrics_are_short(name, value, text):
    assert format_metric(name, value) == text


def test_a_stage_shows_its_own_metrics_first_and_others_when_it_has_none():
    metrics = {"entropy": 2.0, "kl": 6.0, "score": 1.0}
    assert metrics_line("ppo", metrics, 80) == "score 1  KL 6"
    assert metrics_line("rm calibration", {"my_figure": 1.0}, 80) == "my figure 1"
    assert metrics_line("other", {}, 80) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (185, "3:05"), (7620, "2:07:00")])
def test_clocks(seconds, text):
    assert clock(seconds) == text
