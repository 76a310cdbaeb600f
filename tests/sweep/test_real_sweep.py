"""A sweep of the real pipeline on the embedded model, as small as it can be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = f"""
extends: {Path(__file__).parents[2] / "recipes" / "base.yaml"}
name: tiny
data:
  demonstrations: {{max_rows: 96}}
  comparisons: {{max_rows: 96}}
  prompts: {{max_rows: 160}}
reward_model: {{calibration_samples: 32}}
generation: {{max_new_tokens: 16}}
ppo:
  episodes: 32
  rollout_batch_size: 16
  minibatch_size: 8
  forward_batch_size: 8
  gate: warn
  eval_prompts: 8
evaluation: {{num_prompts: 12, best_of_n: 4, best_of_n_prompts: 8}}
sweep: {{set: {{ppo.beta: [0.05, 1]}}}}
"""


@pytest.mark.slow
def test_two_points_have_one_sft_one_reward_model_and_one_best_of_n(tmp_path):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    done = subprocess.run(
        [sys.executable, "-m", "rlhfctl", "sweep", "tiny.yaml", "--jobs", "2", "--json"],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert [run["run"].rpartition("-")[0] for run in value["shared"]] == [
        *("shared-sft", "shared-rm", "shared-best-of-n"),
    ]
    assert [row["n"] for row in value["best_of_n"]["gold"]] == [1, 2, 4]
    assert value["best_of_n"]["proxy"][0]["value"] < value["best_of_n"]["proxy"][2]["value"]
    root = tmp_path / value["sweep"]
    for point in value["points"]:
        metrics = point["metrics"]
        assert {"kl", "proxy", "gold", "gold_gain_low", "win_rate", "best", "alarms"} <= set(
            metrics
        )
        scores = json.loads((root / point["run"] / "eval" / "scores.json").read_text())
        gains = [
            after - before
            for before, after in zip(
                scores["policies"]["sft"]["gold"], scores["policies"]["ppo"]["gold"], strict=True
            )
        ]
        assert sum(gains) / 12 == pytest.approx(metrics["gold_gain"], abs=1e-12)
    taken = value["recommended"]
    assert taken["point"] in (0, 1)
    assert "ppo.beta = " in taken["why"]
