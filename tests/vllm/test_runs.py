"""PPO by both engines, and a run whose server, then whose own process, is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhfctl.json_text import parse_json
from rlhfctl.recipe.view import view
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stage_table import PPO
from rlhfctl.stages.ppo.stage import run
from tests.conftest import BASE_RECIPE, TINY, tiny_recipe
from tests.vllm.conftest import PYTHON

SHORT = ("ppo.episodes=192", "ppo.rollout_batch_size=64", "ppo.eval_rollouts=null")
DEVIATIONS = 5 * (2 / 64) ** 0.5
"""Five standard errors of a difference of two means of 64 scores, whose deviation is about 1."""


def train(tiny_run, output, *overrides):
    logged = []

    class Recorder(NullMonitor):
        def step(self, done, metrics):
            logged.append(metrics)

    inputs = {name: tiny_run.stage(name) for name in ("sft", "rm")}
    output.mkdir()
    run(view(tiny_recipe(*SHORT, *overrides), PPO), inputs, output, Recorder())
    return logged


def test_a_short_run_by_either_engine_starts_from_the_same_policy_and_trains(
    tiny_run, address, tmp_path
):
    plain = train(tiny_run, tmp_path / "transformers")
    vllm = train(
        tiny_run,
        tmp_path / "vllm",
        *("ppo.engine=vllm", f"ppo.vllm.server_base_url={address}"),
        "ppo.vllm.importance_sampling_clip_max=2.0",
    )
    assert len(vllm) == len(plain) == 3
    for metrics in vllm:
        assert 0.0 < metrics["engine_mismatch"] <= metrics["engine_mismatch_max"] < 1e-3
        assert metrics["importance_weight"] == pytest.approx(1.0, abs=1e-3)
        assert metrics["updates"] > 0
    assert vllm[0]["kl"] == 0.0
    assert vllm[0]["score"] == pytest.approx(plain[0]["score"], abs=DEVIATIONS)
    assert vllm[-1]["kl"] > 0.0
    assert (tmp_path / "vllm" / "adapter_model.safetensors").is_file()


def command(tiny_run, runs):
    settings = [*TINY, "ppo.episodes=480", "ppo.save_rollouts=1", "ppo.eval_rollouts=null"]
    settings += ["ppo.engine=vllm", f"ppo.vllm.python={PYTHON}", "ppo.vllm.server_timeout=300"]
    return [
        *(sys.executable, "-m", "rlhfctl", "ppo", str(BASE_RECIPE), "--quiet"),
        *("--run", "killed", "--runs-dir", str(runs)),
        *("--sft", str(tiny_run.stage("sft")), "--rm", str(tiny_run.stage("rm"))),
        *(part for setting in settings for part in ("--set", setting)),
    ]


def children(pid):
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in listed.stdout.split()]


def descendants(pid):
    below = children(pid)
    return below + [child for parent in below for child in descendants(parent)]


def alive(pid):
    return Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()


def rollouts(runs):
    """Rollouts that have been logged."""
    [*logs] = runs.glob("killed/logs/ppo*.jsonl")
    return sum(len(log.read_text().splitlines()) for log in logs)


def await_rollouts(process, runs, count):
    while rollouts(runs) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_a_killed_server_is_started_again_and_a_killed_run_takes_its_server_along(
    tiny_run, tmp_path
):
    runs = tmp_path / "runs"
    start = command(tiny_run, runs)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(start, env=environment, stderr=subprocess.PIPE, text=True)
    await_rollouts(process, runs, 2)
    [guardian] = [pid for pid in children(process.pid) if children(pid)]
    first = descendants(guardian)
    os.kill(children(guardian)[0], signal.SIGKILL)
    await_rollouts(process, runs, 5)
    assert not any(map(alive, first))
    second = descendants(process.pid)
    assert second
    assert not set(first) & set(second)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 30
    while any(map(alive, second)):
        assert time.monotonic() < deadline, "the server outlived its run"
        time.sleep(0.1)
    resumed = subprocess.run(start, env=environment, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    manifest = parse_json((runs / "killed" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["stages"]["ppo"]["metrics"]["rollouts"] == 30
