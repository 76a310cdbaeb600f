"""PPO against its rivals on the embedded world: `rlhfctl compare`, its result stored.

    python -m benchmarks.methods --seeds 3 --jobs 2

SFT and reward model are trained once per seed, and each method on them. Runs stay in --runs-dir, so an
interrupted benchmark resumes. --out has the comparison's `methods.json` with the machine; the page
with the frontiers is `report.html` in the comparison's folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.output import RESULTS, ROOT, show, write

RECIPE = ROOT / "recipes" / "base.yaml"
METHODS = "ppo,rloo,grpo,batch_mean,dpo,best_of_n"
COLUMNS = ("win_rate_at_kl", "gain_at_kl", "kl", "win_rate", "gain", "over_optimisation", "seconds")


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run the comparison, which resumes, and return its result.

    Raises:
        subprocess.CalledProcessError: A run failed.
    """
    runs: Path = options.runs_dir.resolve()
    subprocess.run(
        [
            *(sys.executable, "-m", "rlhfctl", "compare", str(RECIPE)),
            *("--methods", options.methods, "--seeds", str(options.seeds)),
            *("--jobs", str(options.jobs), "--run", "methods", "--runs-dir", str(runs)),
            *(part for setting in options.set for part in ("--set", setting)),
        ],
        check=True,
        cwd=ROOT,
    )
    text = (runs / "methods" / "methods.json").read_text(encoding="utf-8")
    result: dict[str, Any] = json.loads(text)
    return result | {"recipe": RECIPE.name}


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return a row per method: each mean over seeds with its 95 % CI."""
    return [
        [method["method"], *(cell(method, name) for name in COLUMNS)]
        for method in result["methods"]
    ]


def cell(method: dict[str, Any], name: str) -> str:
    """Return a mean with its interval; empty where there is none."""
    if name not in method:
        return ""
    ends = [method[f"{name}_{end}"] for end in ("low", "high") if f"{name}_{end}" in method]
    interval = f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else ""
    return f"{method[name]:.2f}{interval}"


def main() -> None:
    """Run the comparison, write its result and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="Parallel runs, one core each.")
    parser.add_argument("--set", nargs="*", default=[], help="Recipe keys, as KEY=VALUE.")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "build" / "methods")
    parser.add_argument("--out", type=Path, default=RESULTS / "methods.json")
    options = parser.parse_args()

    start = time.monotonic()
    result = compare(options)
    threads = int(os.environ.get("OMP_NUM_THREADS", "0")) or len(os.sched_getaffinity(0))
    result["settings"] = options.set
    result["wall_seconds"] = round(time.monotonic() - start, 1)
    result["machine"] = describe(threads)
    write("methods", result, options.out)
    title = f"By {result['judge']}, at a KL of {result['kl'] or 0.0:.2f} nats"
    show(title, ("method", *COLUMNS), rows(result))


if __name__ == "__main__":
    main()
