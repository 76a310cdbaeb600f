from collections.abc import Callable
from pathlib import Path

from rlhfctl.report.blocks import EstimateCell, Table
from rlhfctl.report.sections.evaluation import blocks
from rlhfctl.report.sources import RunFacts, read_run
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import Comparison
from tests.report import shapes


def tables(facts: RunFacts) -> list[Table]:
    return [block for block in blocks(facts) if isinstance(block, Table)]


def test_policies_stand_side_by_side_with_the_gain(finished_run: Path) -> None:
    rates, both = tables(read_run(finished_run))
    assert [row[0] for row in rates.rows] == ["Gold", "Proxy"]
    rows = {row[0]: row[1:] for row in both.rows}
    assert rows["KL, nats per response"][:2] == ("0", "6.00")
    assert isinstance(gain := rows["Gold reward"][2], EstimateCell)
    assert gain.value == "+2.00"
    assert gain.interval


def test_length_controlled_win_rates_follow_their_own(make_facts: Callable[..., RunFacts]) -> None:
    comparison = Comparison(
        gold_win_rate=Estimate(0.8),
        gold_length_controlled_win_rate=Estimate(0.7, 0.6, 0.78),
    )
    rates, _ = tables(make_facts(shapes.evaluation(comparison)))
    assert [row[:3] for row in rates.rows] == [
        ("Gold", "0.80", ""),
        ("Gold, length-controlled", "0.70", "0.60 to 0.78"),
    ]


def test_a_policy_that_was_not_judged_has_no_column_of_dashes(
    make_facts: Callable[..., RunFacts],
) -> None:
    only_sft = shapes.evaluation(policies={"sft": shapes.policy()})
    (table,) = tables(make_facts(only_sft))
    assert [column.label for column in table.columns] == ["Metric", "SFT"]
    assert table.rows[0] == ("KL, nats per response", "0")
    assert blocks(make_facts()) == ()
