import json
from pathlib import Path

from rlhfctl.report.sources import read_run
from rlhfctl.report.values import report


def test_verdict_metrics_and_alarms_are_one_object(judged_run: Path) -> None:
    value = report(read_run(judged_run))
    assert value["verdict"]["level"] == "gain"
    assert value["stages"]["eval"]["metrics"]["judges"]["endpoint"]["win_rate"] == 0.55
    assert value["alarms"][0]["name"] == "divergence"
    assert len(value["held_out"]) == 9
    assert "each" not in value["held_out"][0]


def test_what_is_not_finite_is_null(judged_run: Path) -> None:
    file = judged_run / "eval" / "metrics.json"
    metrics = json.loads(file.read_text()) | {"gold_gain": float("nan")}
    metrics["policies"]["ppo"]["length"] = float("inf")
    file.write_text(json.dumps(metrics))
    text = json.dumps(report(read_run(judged_run)), allow_nan=False)
    metrics = json.loads(text)["stages"]["eval"]["metrics"]
    assert (metrics["gold_gain"], metrics["policies"]["ppo"]["length"]) == (None, None)
