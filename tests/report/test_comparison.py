import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rlhfctl.errors import CheckpointError, UsageError
from rlhfctl.report.blocks import EstimateCell, Plots, Table
from rlhfctl.report.comparison import MOST_RUNS, markdown_text, recipe_differences, sections, value
from rlhfctl.report.sources import RunFacts, read_run
from rlhfctl.results.estimate import Estimate


@pytest.fixture
def runs(judged_run: Path) -> list[RunFacts]:
    """Two runs: the second's gold win rate is lower, and its recipe another."""
    other = judged_run.with_name("other")
    shutil.copytree(judged_run, other)
    (other / "recipe.yaml").write_text("name: other\nseed: 7\nppo: {beta: 0.3, fast: true}\n")
    first, second = read_run(judged_run), read_run(other)
    assert second.evaluation is not None
    lower = replace(second.comparison, gold_win_rate=Estimate(0.3, 0.2, 0.4))
    return [first, replace(second, evaluation=replace(second.evaluation, comparison=lower))]


def test_verdicts_metrics_recipes_and_curves_of_all_runs(runs: list[RunFacts]) -> None:
    verdicts, metrics, recipes, curves = sections(runs)
    (table,) = verdicts.blocks
    assert isinstance(table, Table)
    assert [row[:2] for row in table.rows] == [("trial", "Gain"), ("other", "Reward hacking")]
    (table,) = metrics.blocks
    assert isinstance(table, Table)
    assert [column.label for column in table.columns] == ["Metric", "trial", "other"]
    rates = table.rows[0]
    assert rates[0] == "Gold win rate over SFT"
    assert isinstance(other := rates[2], EstimateCell)
    assert (other.value, other.interval) == ("0.30", "0.20 to 0.40")
    assert other.bar is not None
    assert other.bar.low == 0
    assert other.bar.high == pytest.approx(25)
    assert "Win rate by endpoint" in [row[0] for row in table.rows]
    (table,) = recipes.blocks
    assert isinstance(table, Table)
    assert table.rows == [("ppo.beta", "not set", "0.3"), ("ppo.fast", "not set", "True")]
    against, over = curves.blocks
    assert isinstance(against, Plots)
    assert isinstance(over, Plots)
    assert [line.label for line in against.plots[0].lines] == ["trial", "other"]
    assert [line.colour for line in against.plots[0].lines] == [1, 2]


def test_a_key_that_only_one_recipe_has_is_not_set_in_the_others(runs: list[RunFacts]) -> None:
    assert dict(recipe_differences(runs)) == {
        "ppo.beta": ("not set", "0.3"),
        "ppo.fast": ("not set", "True"),
    }


def test_the_other_forms_say_the_same(runs: list[RunFacts]) -> None:
    text = markdown_text(runs)
    assert re.search(r"\| Gold win rate over SFT \| .* \| 0\.30 \(0\.20 to 0\.40\) \|", text)
    assert "### Curves" not in text
    found = value(runs)
    assert [run["verdict"]["level"] for run in found["runs"]] == ["gain", "hacking"]
    assert found["recipe_differences"]["ppo.beta"] == ["not set", "0.3"]


def test_too_many_runs_and_a_broken_recipe_are_named(runs: list[RunFacts]) -> None:
    with pytest.raises(UsageError, match="13 runs are too many"):
        sections(runs[:1] * (MOST_RUNS + 1))
    with pytest.raises(CheckpointError, match="not a YAML mapping"):
        sections([runs[0], replace(runs[1], recipe="- a\n")])
