"""Killed (-9) at random moments and started again with the same command, a stage ends bit for bit
as one that never was. Real processes; the moments come from a seed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BASE_RECIPE = Path(__file__).parents[2] / "recipes" / "base.yaml"
WEIGHTS = ("adapter_model.safetensors", "critic/adapter_model.safetensors")
SMALL = [
    "data.demonstrations.max_rows=96",
    "data.comparisons.max_rows=96",
    "data.prompts.max_rows=160",
    "reward_model.calibration_samples=32",
    "ppo.gate=warn",
    "ppo.rollout_batch_size=16",
    "ppo.minibatch_size=8",
    "generation.max_new_tokens=16",
    "ppo.kl_controller={target: 2, horizon: 500}",
    "ppo.score_normalization=running",
]
SAVING = {
    "sft": ["sft.save_steps=1", "sft.per_device_train_batch_size=1"],
    "train-rm": ["reward_model.save_steps=1", "reward_model.per_device_train_batch_size=1"],
    "ppo": ["ppo.save_rollouts=1", "ppo.episodes=640", "ppo.ema_decay=0.5"],
}
FOLDERS = {"sft": "sft", "train-rm": "rm", "ppo": "ppo"}


def start(runs, run, command):
    settings = [
        argument
        for key in (*SMALL, *(key for keys in SAVING.values() for key in keys))
        for argument in ("--set", key)
    ]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "rlhfctl", command, str(BASE_RECIPE), "--quiet"),
            *("--run", run, "--runs-dir", str(runs), *settings),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(runs, run, command):
    process = start(runs, run, command)
    _, told = process.communicate(timeout=600)
    assert process.returncode == 0, told


def weights(runs, run, command):
    folder = runs / run / FOLDERS[command]
    return {name: (folder / name).read_bytes() for name in WEIGHTS if (folder / name).exists()}


def kill_while_training(runs, run, command, delay):
    """Kill the command `delay` seconds after its next checkpoint; False if it was done before."""
    checkpoints = runs / run / f".{FOLDERS[command]}.partial" / "checkpoints"
    before = set(checkpoints.glob("*"))
    process = start(runs, run, command)
    while process.poll() is None and set(checkpoints.glob("*")) <= before:
        time.sleep(0.01)
    time.sleep(delay)
    killed = process.poll() is None
    if killed:
        process.send_signal(signal.SIGKILL)
    process.communicate()
    return killed


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders, one of them made without any kill."""
    folder = tmp_path_factory.mktemp("runs")
    for command in FOLDERS:
        finish(folder, "whole", command)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", list(FOLDERS))
def test_ten_kills_leave_no_trace_in_the_weights(runs, command):
    run = f"killed-{command}"
    for earlier in list(FOLDERS)[: list(FOLDERS).index(command)]:
        finish(runs, run, earlier)
    moments, kills = random.Random(f"moments of {command}"), 0
    for _ in range(10):
        kills += kill_while_training(runs, run, command, moments.uniform(0, 0.4))
    assert kills == 10, "the stage was over before it could be killed"
    finish(runs, run, command)
    assert weights(runs, run, command) == weights(runs, "whole", command)
