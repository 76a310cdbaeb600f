"""Metrics that the shipped recipe must reach on the embedded world for any seed (minutes per seed)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BASE_RECIPE = Path(__file__).parent.parent / "recipes" / "base.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demo_reaches_its_bars(tmp_path, seed):
    result = subprocess.run(
        [sys.executable, "-m", "rlhfctl", "run", BASE_RECIPE, "--seed", str(seed), "--json"],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    metrics = {stage["stage"]: stage["metrics"] for stage in json.loads(result.stdout)["stages"]}
    assert metrics["rm"]["gold_accuracy"] >= 0.80
    judged = metrics["eval"]
    assert judged["judge"] == "gold"
    assert judged["gold_win_rate_low"] > 0.60
    assert judged["policies"]["ppo"]["gold"] > judged["policies"]["sft"]["gold"]
    assert 1.0 <= judged["policies"]["ppo"]["kl"] <= 25.0
