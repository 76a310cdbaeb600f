"""PPO learns on the embedded world as the literature says, seed by seed. Minutes a seed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
BETAS = ["beta_0", "beta_0.02", "base", "beta_0.2", "beta_1"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_larger_beta_gives_smaller_kl_and_all_policies_gain_gold_reward(tmp_path, seed):
    result = subprocess.run(
        [
            *(sys.executable, str(ROOT / "benchmarks" / "learning.py"), "--seeds", seed),
            *("--variants", *BETAS, "--runs-dir", str(tmp_path / "runs")),
            *("--out", str(tmp_path / "learning.json")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    curves = json.loads((tmp_path / "learning.json").read_text())["curves"]
    runs = [curves[variant][seed] for variant in BETAS]
    last = [float(np.mean(run["kl"][-5:])) for run in runs]
    assert last == sorted(last, reverse=True)
    assert last[0] > 3 * last[-1]
    for run in runs:
        assert np.mean(run["gold"][-5:]) > run["gold"][0] + 0.3
