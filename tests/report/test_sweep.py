import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlhfctl.errors import CheckpointError
from rlhfctl.report import sweep
from rlhfctl.report.blocks import EstimateCell, Note, Plots, Table
from rlhfctl.results.io import to_json
from rlhfctl.results.sweep import RaisedAlarm, RecommendedSetting, SettingMetrics, SweepSetting
from tests.report import shapes


def test_a_sweep_shows_its_frontier_points_and_recommendation(swept: Path) -> None:
    recommended, frontier, points = sweep.sections(sweep.read(swept))
    (note,) = recommended.blocks
    assert isinstance(note, Note)
    assert note.text == "ppo.beta = 0.1 has the highest gain in gold reward."
    pictures = frontier.blocks[0]
    assert isinstance(pictures, Plots)
    gold, proxy = pictures.plots
    assert (gold.title, proxy.title) == ("Gold against √KL", "Proxy against √KL")
    best, others, chosen = gold.lines
    assert len(best.steps) == 5
    assert others.steps == pytest.approx((0.4**0.5, 2.0, 3.0))
    assert others.values == (0.5, 1.0, 0.4)
    assert others.low[1] == pytest.approx(0.9)
    assert chosen.values == (1.3,)
    (table,) = points.blocks
    assert isinstance(table, Table)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["0.05"][:2] == (
        EstimateCell("4.00", "3.90 to 4.10"),
        EstimateCell("1.00", "0.900 to 1.10"),
    )
    assert rows["0.1"][-1] == "done, recommended"
    assert rows["1.0"][-1] == "failed"


def test_settings_over_seeds_stand_before_their_runs(swept: Path) -> None:
    points = [
        replace(point, settings={**point.settings, "seed": seed})
        for point in shapes.SWEEP.points
        for seed in (0, 1)
    ]
    assert points[0].metrics is not None
    alarmed = replace(points[0].metrics, alarms=[RaisedAlarm("score_range", 1, "Scores.")])
    groups = [
        SweepSetting(
            {"ppo.beta": beta},
            [at],
            SettingMetrics(kl=shapes.around(4), gold=shapes.around(beta)),
        )
        for at, beta in enumerate((0.0, 0.1))
    ]
    result = replace(
        shapes.SWEEP,
        keys=["ppo.beta", "seed"],
        points=[replace(points[0], metrics=alarmed), *points[1:]],
        groups=groups,
        recommended=RecommendedSetting(4, [4, 5], {"ppo.beta": 0.1}, "It wins."),
    )
    (swept / "sweep.json").write_text(json.dumps(to_json(result)))
    _, frontier, tables = sweep.sections(sweep.read(swept))
    pictures = frontier.blocks[0]
    assert isinstance(pictures, Plots)
    _, others, chosen = pictures.plots[0].lines
    assert (others.values, chosen.values) == ((0.0,), (0.1,))
    over, each = tables.blocks
    assert isinstance(over, Table)
    assert isinstance(each, Table)
    assert [row[-1] for row in over.rows] == ["", "recommended"]
    assert [row[:2] for row in each.rows][:2] == [("0.0", "0"), ("0.0", "1")]
    assert each.rows[0][-2] == "score range"
    assert [row[-1] for row in each.rows].count("done, recommended") == 2


def test_the_other_forms_say_the_same(swept: Path) -> None:
    found = sweep.read(swept)
    assert "4.00 (3.90 to 4.10)" in sweep.markdown_text(found)
    assert sweep.value(found)["points"] == to_json(shapes.SWEEP)["points"]


def test_a_sweep_under_way_and_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(
        json.dumps({"recipe": "r", "keys": ["ppo.beta"], "points": []})
    )
    assert sweep.sections(sweep.read(tmp_path)) == []
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        sweep.read(tmp_path)
    other = to_json(shapes.SWEEP) | {"frontier": []}
    (tmp_path / "sweep.json").write_text(json.dumps(other))
    with pytest.raises(CheckpointError, match="frontier: unknown field"):
        sweep.read(tmp_path)
