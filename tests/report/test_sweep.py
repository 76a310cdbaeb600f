import json
from pathlib import Path

import pytest
import shapes

from rlhfctl.errors import CheckpointError
from rlhfctl.report import sweep
from rlhfctl.report.blocks import Estimate, Note, Plots, Table


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
    assert rows["0.05"][:2] == (Estimate("4.00", "3.90 to 4.10"), Estimate("1.00", "0.900 to 1.10"))
    assert rows["0.1"][-1] == "done, recommended"
    assert rows["1.0"][-1] == "failed"


def test_settings_over_seeds_stand_before_their_runs(swept: Path) -> None:
    found = json.loads((swept / "sweep.json").read_text())
    points = [
        {**point, "settings": {**point["settings"], "seed": seed}}
        for point in found["points"]
        for seed in (0, 1)
    ]
    points[0]["metrics"]["alarms"] = [{"name": "score_range"}]
    groups = [
        {
            "settings": {"ppo.beta": beta},
            "points": [at],
            "metrics": shapes.ends("kl", 4) | shapes.ends("gold", beta),
        }
        for at, beta in enumerate((0.0, 0.1))
    ]
    recommended = {"point": 4, "settings": {"ppo.beta": 0.1}, "why": "It wins."}
    found |= {"keys": ["ppo.beta", "seed"], "points": points, "groups": groups}
    (swept / "sweep.json").write_text(json.dumps(found | {"recommended": recommended}))
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
    assert sweep.value(found)["points"] == json.loads(json.dumps(shapes.SWEEP))["points"]


def test_a_sweep_under_way_and_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps({"keys": ["ppo.beta"], "points": []}))
    assert sweep.sections(sweep.read(tmp_path)) == []
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot read"):
        sweep.read(tmp_path)
