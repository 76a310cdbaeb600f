"""The page of a comparison of methods: its table, its frontiers and its runs."""

from dataclasses import replace

from rlhfctl.report import methods as page
from rlhfctl.report.blocks import Note, Plots, Table
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.io import from_json, to_json
from rlhfctl.results.methods import (
    FrontierPoint,
    MeanPoint,
    MethodRun,
    MethodsResult,
    MethodSummary,
)
from rlhfctl.results.sweep import RunError

START = FrontierPoint(0.0, 0.5, 0.0, 0.0, "SFT")
ENDS = {
    "ppo": FrontierPoint(4.0, 0.8, 1.2, 0.9, "x"),
    "dpo": FrontierPoint(2.25, 0.7, 0.8, None, "x"),
}
HALF = Estimate(0.5, 0.4, 0.6)
FRONTIERS = {
    "ppo": [
        MeanPoint(0.0, HALF, Estimate(0.0), Estimate(0.0)),
        MeanPoint(4.0, HALF, Estimate(1.2)),
    ],
    "dpo": [MeanPoint(0.0, HALF, Estimate(0.0)), MeanPoint(2.25, HALF, Estimate(0.8))],
}
RESULT = MethodsResult(
    recipe="base.yaml",
    judge="gold",
    methods=[
        MethodSummary(
            method,
            [0, 1],
            win_rate_at_kl=Estimate(win_rate, 0.7, 0.8),
            seconds=Estimate(90.0),
            frontier=FRONTIERS[method],
        )
        for method, win_rate in (("ppo", 0.75), ("dpo", 0.7))
    ],
    runs=[
        *(
            MethodRun(method, seed, [f"{method}-{seed}"], "done", None, [START, end], end, 9.0, 20.0)
            for method, end in ENDS.items()
            for seed in (0, 1)
        ),
        MethodRun("rloo", 0, ["rloo-0"], "failed", RunError(5, "DivergedError", "loss <b>", "", "")),
    ],
    kl=2.25,
)  # fmt: skip


def test_the_result_is_read_back_as_it_was_written():
    assert from_json(MethodsResult, to_json(RESULT), "methods.json") == RESULT


def test_one_table_at_equal_kl():
    (table, _) = page.sections(RESULT)[0].blocks
    assert isinstance(table, Table)
    assert [column.label for column in table.columns] == ["Method", "Win rate at a KL of 2.25"]
    assert [row[0] for row in table.groups[0].rows] == ["PPO", "DPO"]


def test_methods_that_have_hardly_moved_are_named_as_such():
    warning = page.sections(replace(RESULT, kl=0.01))[0].blocks[1]
    assert isinstance(warning, Note)
    assert warning.warning


def test_frontiers_stand_in_one_plot_with_a_colour_and_a_label_per_method():
    frontiers = next(part for part in page.sections(RESULT) if part.title == "Frontiers")
    plots = frontiers.blocks[0]
    assert isinstance(plots, Plots)
    wins, gains, proxy = plots.plots
    assert [(line.label, line.colour) for line in wins.lines] == [("PPO", 1), ("DPO", 2)]
    assert wins.lines[0].steps == (0.0, 2.0)
    assert wins.lines[0].low == (0.4, 0.4)
    assert gains.lines[1].values == (0.0, 0.8)
    assert [line.label for line in proxy.lines] == ["PPO"], "DPO's points have no proxy score"


def test_the_page_names_failures_and_escapes_them():
    comparison = page.Methods("base-methods", RESULT)
    assert "| PPO | 0.75 (0.70 to 0.80)" in page.markdown_text(comparison)
    assert page.value(comparison)["comparison"] == "base-methods"
    text = page.html(comparison)
    assert "loss &lt;b&gt;" in text
    assert "loss <b>" not in text
