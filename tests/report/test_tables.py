from pathlib import Path

from rlhfctl.report.sources import read_run
from rlhfctl.report.tables import (
    Bar,
    Row,
    comparisons,
    reward_model_rows,
    stage_tables,
    win_rate_rows,
)


def test_every_stage_has_its_key_figures(finished_run: Path) -> None:
    sft, rm, ppo, evaluation = stage_tables(read_run(finished_run))
    assert sft.title == "SFT"
    assert sft.state == "1 min 1 s"
    assert sft.rows[0] == Row("Held-out loss, nats a token", "2.40 → 1.10")
    assert rm.rows[0] == Row("Held-out accuracy", "0.76", "0.74 to 0.78", Bar(74, 76, 78))
    assert [row.label for row in ppo.rows][:2] == ["Episodes", "Score"]
    assert evaluation.rows[-1] == Row("Held-out prompts", "60")
    assert ("per_annotator.ada.pairs", "200") in rm.all_figures


def test_annotators_follow_the_overall_accuracy_and_its_baseline(finished_run: Path) -> None:
    rows = reward_model_rows(read_run(finished_run).metrics("rm"))
    assert [row.label for row in rows] == [
        "Held-out accuracy",
        "Accuracy of the longer one",
        "Annotator ada",
        "Annotator eve",
    ]
    assert rows[0].count == "1,400"
    assert rows[2] == Row("Annotator ada", "0.80", "0.75 to 0.85", Bar(75, 80, 85), "200")


def test_policies_stand_side_by_side_with_the_gain(finished_run: Path) -> None:
    figures = read_run(finished_run).figures
    by_label = {row.label: row for row in comparisons(figures)}
    assert by_label["KL, nats a response"].sft == "0"
    assert by_label["KL, nats a response"].ppo == "6.00"
    assert by_label["Gold reward"].gain == "+2.00"
    assert by_label["Gold reward"].interval
    assert [row.label for row in win_rate_rows(figures)] == [
        "Gold win rate of PPO over SFT",
        "Proxy win rate of PPO over SFT",
    ]


def test_a_policy_that_was_not_judged_leaves_dashes() -> None:
    (row,) = comparisons({"policies": {"sft": {"kl": 0.0}}})
    assert (row.sft, row.ppo, row.gain) == ("0", "–", "–")  # noqa: RUF001
    assert comparisons({}) == []
