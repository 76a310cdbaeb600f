from pathlib import Path

import pytest

from rlhfctl.report.markdown import plain, report
from rlhfctl.report.sources import read_run
from tests.report import shapes


def test_verdict_comes_first_and_tables_follow(judged_run: Path) -> None:
    text = report(read_run(judged_run))
    first, _, verdict, *_ = text.splitlines()
    assert first == "## trial: Gain"
    assert verdict.startswith("**PPO beats SFT: gold win rate 1.00")
    assert "- PPO is worse than SFT at perplexity." in text
    assert "| Gold, length-controlled | 0.80 | 0.70 to 0.90 |" in text
    assert "### Annotators" in text


def test_text_that_a_model_wrote_is_left_out(judged_run: Path) -> None:
    text = report(read_run(judged_run))
    assert "answer number" not in text
    assert shapes.HOSTILE not in text
    assert "I am sure" not in text


def test_every_table_has_as_many_cells_in_every_row(judged_run: Path) -> None:
    lines = report(read_run(judged_run)).splitlines()
    tables: list[list[int]] = []
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|"):
            if not before.startswith("|"):
                tables.append([])
            tables[-1].append(line.count(" | "))
    assert len(tables) > 8
    assert all(len(set(widths)) == 1 for widths in tables)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("<script>", r"\<script\>"),
        ("a | b", r"a \| b"),
        ("[x](javascript:y)", r"\[x\](javascript\:y)"),
        ("see https://evil.example", r"see https\://evil.example"),
        ("see www.evil.example", r"see www\.evil.example"),
        ("@team and #12", r"\@team and \#12"),
        ("two\n\nlines\u202e", r"two lines\\u202e"),
        ("KL: 3", "KL: 3"),
    ],
)
def test_nothing_in_a_text_is_markup(text: str, written: str) -> None:
    assert plain(text) == written
