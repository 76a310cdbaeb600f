"""Commands that diverge end with exit code 5, and go on from the last sound state."""

import json
import os
import subprocess
import sys

import pytest

from rlhfctl.run.manifest import Manifest
from tests.conftest import BASE_RECIPE, TINY

ROOT = BASE_RECIPE.parents[1]
OFTEN = ("sft.logging_steps=100", "sft.save_steps=1")
HUGE = ("ppo.learning_rate=1e30", "ppo.value_learning_rate=1e30", "ppo.max_ratio=null")


def rlhfctl(runs, command, *settings, options=()):
    keys = [part for key in (*TINY, *settings) for part in ("--set", key)]
    return subprocess.run(
        [
            *(sys.executable, "-m", "rlhfctl", command, str(BASE_RECIPE), "--quiet"),
            *("--run", "one", "--runs-dir", str(runs), *keys, *options),
        ],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def checkpoints(runs, stage):
    folder = runs / "one" / f".{stage}.partial" / "checkpoints"
    return sorted(path.name for path in folder.glob("[cr]*-*"))


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_of_sft(tmp_path, processes):
    """The warm-up's first step has rate 0, so that its state is sound."""
    launch = ("--launch", str(ROOT / "recipes" / "launch" / "ddp.yaml")) if processes > 1 else ()
    for _ in range(2):
        done = rlhfctl(tmp_path, "sft", *OFTEN, "sft.learning_rate=1e30", options=launch)
        assert done.returncode == 5, done.stderr
        assert "loss is nan at step 3" in done.stderr
        assert checkpoints(tmp_path, "sft") == ["checkpoint-1"]
        assert not (tmp_path / "one" / "sft").exists()

    slower = (*OFTEN, "sft.learning_rate=1e-3")
    done = rlhfctl(tmp_path, "sft", *slower)
    assert done.returncode == 2
    assert "sft.learning_rate changed from 1e+30 to 0.001" in done.stderr
    allowed: tuple[str, ...] = ("--allow-change", "sft.learning_rate")
    if processes > 1:
        done = rlhfctl(tmp_path, "sft", *slower, options=allowed)
        assert done.returncode == 2
        assert "the number of processes changed from 2 to 1" in done.stderr
        allowed += ("--allow-world-size-change",)
    done = rlhfctl(tmp_path, "sft", *slower, options=allowed)
    assert done.returncode == 0, done.stderr
    record = Manifest.load(tmp_path / "one" / "manifest.json").stages["sft"]
    assert len(record.changes) == processes


@pytest.mark.faults
@pytest.mark.slow
def test_of_ppo(tmp_path):
    for command in ("sft", "train-rm"):
        assert rlhfctl(tmp_path, command).returncode == 0
    often = ("ppo.save_rollouts=1", "ppo.episodes=64")
    done = rlhfctl(tmp_path, "ppo", *often, *HUGE)
    assert done.returncode == 5, done.stderr
    batch = tmp_path / "one" / "logs" / "ppo.diverged.jsonl"
    assert f"The batch is in {batch}" in done.stderr
    rows = [json.loads(line) for line in batch.read_text().splitlines()]
    assert rows
    assert all("prompt" in row for row in rows)
    done = rlhfctl(tmp_path, "ppo", *often, options=("--allow-change", "ppo"))
    assert done.returncode == 0, done.stderr
