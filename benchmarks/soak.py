"""Hours of PPO on the embedded world: growth of memory, open files and time per rollout.

``python -m benchmarks.soak --minutes 120`` trains SFT and reward model, starts PPO with more episodes
than it can do, reads the process every ten seconds, stops it by SIGTERM, and writes a JSON file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
from scipy.stats import linregress

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "soak.json"
SECONDS_BETWEEN_READINGS = 10.0
WARMUP_SHARE = 0.1
MIB = 2**20
LINE_STEP = re.compile(r'^\{"step": (\d+)', re.MULTILINE)
SETTINGS = (
    "data.demonstrations.max_rows=600",
    "data.comparisons.max_rows=600",
    "data.prompts.max_rows=1000",
    "evaluation.num_prompts=32",
    "ppo.episodes=100000000",
    "ppo.rollout_batch_size=64",
    "ppo.minibatch_size=16",
    "ppo.forward_batch_size=16",
    "ppo.learning_rate=1e-4",
    "ppo.value_learning_rate=1e-4",
    "ppo.kl_controller={target: 3, horizon: 1000}",
    "ppo.gate=warn",
    "ppo.eval_rollouts=20",
    "ppo.eval_prompts=32",
    "ppo.save_minutes=2",
)


@dataclass(frozen=True)
class Reading:
    """State of the process at one moment.

    Attributes:
        hours: Time since the first reading.
        rollouts: Rollouts done.
        cpu_seconds: CPU seconds of the process so far.
        resident_mib: Resident memory, in MiB.
        files: Open file descriptors.
        threads: Threads.
        folder_mib: Size of the run folder, in MiB.
    """

    hours: float
    rollouts: int
    cpu_seconds: float
    resident_mib: float
    files: int
    threads: int
    folder_mib: float


@dataclass(frozen=True)
class Slope:
    """Linear growth over the time after the warm-up.

    Attributes:
        per_hour: Growth per hour.
        error: Standard error of the slope.
        first: Mean of the first tenth after the warm-up.
        last: Mean of the last tenth.
    """

    per_hour: float
    error: float
    first: float
    last: float


def slope(hours: Sequence[float], values: Sequence[float]) -> Slope:
    """Fit a line by least squares."""
    fit = linregress(hours, values)
    tenth = max(len(values) // 10, 1)
    first, last = sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth
    # scipy gives no error of a quantity that never changed.
    error = 0.0 if min(values) == max(values) else float(fit.stderr)
    return Slope(float(fit.slope), error, first, last)


def slopes(readings: Sequence[Reading]) -> dict[str, Slope]:
    """Return the growth of each quantity, and of CPU seconds per rollout, after the warm-up.

    Raises:
        ValueError: Fewer than 20 readings remain.
    """
    after = readings[int(len(readings) * WARMUP_SHARE) :]
    if len(after) < 20:
        raise ValueError(f"{len(after)} readings after the warm-up are too few for a slope")
    hours = [reading.hours for reading in after]
    names = [f.name for f in fields(Reading) if f.name not in ("hours", "rollouts", "cpu_seconds")]
    growth = {name: slope(hours, [float(getattr(r, name)) for r in after]) for name in names}
    # Over about twenty spans, since a single one of ten seconds holds a few rollouts at most.
    marks = after[:: max(len(after) // 20, 1)]
    marks = [next(same) for _, same in groupby(marks, lambda mark: mark.rollouts)]
    costs = [
        (later.cpu_seconds - earlier.cpu_seconds) / (later.rollouts - earlier.rollouts)
        for earlier, later in pairwise(marks)
    ]
    growth["cpu_seconds_per_rollout"] = slope([mark.hours for mark in marks[1:]], costs)
    return growth


def command(stage: str, folder: Path) -> list[str]:
    """Return the command of a stage."""
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    recipe = str(ROOT / "recipes" / "base.yaml")
    run = ["--run", "soak", "--runs-dir", str(folder)]
    return [sys.executable, "-m", "rlhfctl", stage, recipe, *run, *settings]


def size_of(path: Path) -> int:
    """Return a file's size in bytes; 0 for a folder or a file that was just removed."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def read(process: psutil.Process, folder: Path, began: float) -> Reading:
    """Read the process and its run folder."""
    # One line per rollout, and one per held-out evaluation at the same step.
    metrics = folder / "soak" / "logs" / "ppo.partial.jsonl"
    done = len(set(LINE_STEP.findall(metrics.read_text()))) if metrics.exists() else 0
    size = sum(size_of(path) for path in folder.rglob("*"))
    with process.oneshot():
        times = process.cpu_times()
        return Reading(
            hours=(time.monotonic() - began) / 3600,
            rollouts=done,
            cpu_seconds=times.user + times.system,
            resident_mib=process.memory_info().rss / MIB,
            files=process.num_fds(),
            threads=process.num_threads(),
            folder_mib=size / MIB,
        )


def soak(folder: Path, minutes: float) -> tuple[list[Reading], int]:
    """Run PPO for a time; return the readings and the exit code after SIGTERM.

    Raises:
        RuntimeError: PPO ended before the time was over.
    """
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for stage in ("sft", "train-rm"):
        subprocess.run(command(stage, folder), env=variables, check=True)
    with (folder / "ppo.txt").open("w") as log:
        started = subprocess.Popen(command("ppo", folder), env=variables, stdout=log, stderr=log)
        process = psutil.Process(started.pid)
        readings: list[Reading] = []
        began = time.monotonic()
        while time.monotonic() - began < minutes * 60:
            time.sleep(SECONDS_BETWEEN_READINGS)
            if started.poll() is not None:
                said = (folder / "ppo.txt").read_text()[-2000:]
                raise RuntimeError(f"PPO ended with {started.returncode}: {said}")
            readings.append(read(process, folder, began))
            if len(readings) % 60 == 0:
                print(readings[-1], flush=True)
        started.send_signal(signal.SIGTERM)
        return readings, started.wait(timeout=300)


def main() -> int:
    """Run, print the slopes, write the JSON file; return 1 unless PPO ended in 143."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        readings, code = soak(Path(folder), options.minutes)
    growth = slopes(readings)
    for name, fit in growth.items():
        print(
            f"{name}: {fit.first:.2f} at first, {fit.last:.2f} at last, "
            f"{fit.per_hour:+.3f} +- {fit.error:.3f} per hour"
        )
    result = {
        "minutes": options.minutes,
        "rollouts": readings[-1].rollouts,
        "exit_code": code,
        "growth": {name: asdict(fit) for name, fit in growth.items()},
        "readings": [asdict(reading) for reading in readings[::6]],
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"exit code {code} after SIGTERM; {readings[-1].rollouts} rollouts")
    return int(code != 128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
