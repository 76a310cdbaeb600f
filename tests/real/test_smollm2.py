"""PPO on SmolLM2-135M-Instruct makes it keep to the rule of its task more often than SFT does.

The rule is `examples/one_sentence.py`. `make real` prepares model and data, and runs these tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhfctl.results.evaluation import EvaluationResult, JudgeResult
from rlhfctl.results.io import read_result
from tests.present import present

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
LARGEST_KL = 20.0
"""Nats per response."""

pytestmark = pytest.mark.real


def rlhfctl(*arguments: str) -> None:
    command = [sys.executable, "-m", "rlhfctl", *arguments, "--runs-dir", str(BUILD / "real")]
    settings = ["--set", f"model.name_or_path={BUILD / 'smollm2'}"]
    subprocess.run([*command, *settings, "--allow-code"], cwd=ROOT, check=True, env=os.environ)


def judged(run: Path) -> JudgeResult:
    """Return the preferences of the rule between PPO and SFT."""
    result = read_result(EvaluationResult, run / "eval" / "metrics.json")
    return present(result.judges)["rule"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ppo_keeps_to_the_rule_more_often_than_sft(seed: int) -> None:
    rlhfctl("run", "recipes/smollm2-135m.yaml", "--run", f"seed-{seed}", "--seed", str(seed))
    run = BUILD / "real" / f"seed-{seed}"
    win_rate = present(judged(run).preferences.win_rate)
    policies = read_result(EvaluationResult, run / "eval" / "metrics.json").policies
    figures = {
        "seed": seed,
        "win_rate": [win_rate.value, win_rate.low, win_rate.high],
        "kl": policies["ppo"].kl.value,
        "length": [policies["sft"].length, policies["ppo"].length],
    }
    print(json.dumps(figures))
    assert present(win_rate.low) > 0.5
    assert present(policies["ppo"].kl.high) < LARGEST_KL


def test_near_greedy_answers_of_seed_0_keep_to_the_rule_more_often_too() -> None:
    trained = BUILD / "real" / "seed-0"
    folders = [f"--{name}={trained / name}" for name in ("sft", "rm", "ppo")]
    settings = ["--run", "greedy", "--set", "evaluation.temperature=0.01"]
    rlhfctl("eval", "recipes/smollm2-135m.yaml", *folders, *settings)
    win_rate = present(judged(BUILD / "real" / "greedy").preferences.win_rate)
    assert present(win_rate.low) > 0.5
