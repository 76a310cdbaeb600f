"""The page of a comparison of methods: its table, its frontiers and its runs."""

from rlhfctl.report import methods as page
from rlhfctl.report.blocks import Plots, Table
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.io import from_json, to_json
from rlhfctl.results.methods import FrontierPoint, MethodRun, MethodsResult, MethodSummary
from rlhfctl.results.sweep import RunError

START = FrontierPoint(0.0, 0.5, 0.0, 0.0, "SFT")
ENDS = {
    "ppo": FrontierPoint(4.0, 0.8, 1.2, 0.9, "x"),
    "dpo": FrontierPoint(2.25, 0.7, 0.8, None, "x"),
}
RESULT = MethodsResult(
    recipe="base.yaml",
    judge="gold",
    methods=[
        MethodSummary("ppo", [0, 1], win_rate_at_kl=Estimate(0.75, 0.7, 0.8), seconds=Estimate(90.0)),
        MethodSummary("dpo", [0, 1], win_rate_at_kl=Estimate(0.7, 0.6, 0.8), seconds=Estimate(30.0)),
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
    titles = [column.label for column in table.columns]
    assert titles == ["Method", "Win rate over SFT at a KL of 2.25 nats", "Training time"]
    assert [row[0] for row in table.groups[0].rows] == ["PPO", "DPO"]


def test_frontiers_stand_in_one_plot_with_a_colour_per_method_and_a_label_each():
    frontiers = next(part for part in page.sections(RESULT) if part.title == "Frontiers")
    plots = frontiers.blocks[0]
    assert isinstance(plots, Plots)
    wins, gains, proxy = plots.plots
    assert [(line.label, line.colour) for line in wins.lines] == [
        *(("PPO", 1), ("", 1)),
        *(("DPO", 2), ("", 2)),
    ]
    assert wins.lines[0].steps == (0.0, 2.0)
    assert gains.lines[2].values == (0.0, 0.8)
    assert proxy.lines[2].values == (0.0,), "a point without a proxy score is left out"


def test_the_page_names_failures_and_escapes_them():
    text = page.html("base-methods", RESULT)
    assert "loss &lt;b&gt;" in text
    assert "loss <b>" not in text
