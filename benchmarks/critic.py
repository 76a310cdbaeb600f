"""A critic of its own against a value head on the policy, on the embedded world.

    OMP_NUM_THREADS=1 python -m benchmarks.critic

PPO of recipes/base.yaml with `ppo.critic: adapter` and with `head`, three seeds each, all from one SFT
checkpoint and reward model. Every run is a process of its own. SFT and the last policy answer the same
held-out prompts, and gold, which PPO never sees, compares their answers. CPU time and peak memory are
the process's; the memory is that above what it had before the models were loaded. `update` is the CPU
time of the optimiser steps alone. The estimated memory is that of `rlhfctl plan` for a base of half a
billion weights, from its configuration. --out, by default benchmarks/results/critic.json, is updated
after each run, so an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.machine import describe
from benchmarks.output import CHECKPOINTS, RESULTS, ROOT, show, write
from benchmarks.shapes import SHAPES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RECIPE = ROOT / "recipes" / "base.yaml"
VARIANTS = {"adapter": ["ppo.critic=adapter"], "head": ["ppo.critic=head"]}
PROMPTS = 512
"""Most held-out prompts; the embedded world has fewer that no stage trains on."""
LAST = 5
"""Rollouts at the end whose explained variance is averaged."""
KINDS = {"LoRA of rank 16": {"r": 16, "alpha": 32}, "all weights": None}


def checkpoints(folder: Path) -> dict[str, Path]:
    """Train SFT and the reward model, unless they are up to date."""
    for command in ("sft", "train-rm"):
        subprocess.run(
            [
                *(sys.executable, "-m", "rlhfctl", command, str(RECIPE), "--quiet"),
                *("--run", "critic", "--runs-dir", str(folder)),
            ],
            check=True,
            cwd=ROOT,
        )
    return {name: folder / "critic" / name for name in ("sft", "rm")}


def train(variant: str, seed: int, inputs: Mapping[str, Path]) -> dict[str, float]:
    """Run PPO in this process and return what came of it."""
    from rlhfctl.recipe.load import load_recipe
    from rlhfctl.run.memory import peak_memory_bytes
    from rlhfctl.run.monitor import NullMonitor
    from rlhfctl.stages.ppo.stage import open_trainer

    class Recorder(NullMonitor):
        """Keeps the explained variance of every rollout."""

        explained: list[float]

        def step(self, done: int, metrics: Mapping[str, float]) -> None:
            if "explained_variance" in metrics:  # not before the first rollout
                self.explained.append(metrics["explained_variance"])

    overrides = [f"seed={seed}", f"ppo.eval_prompts={PROMPTS}", "ppo.eval_rollouts=1000"]
    overrides += ["evaluation.num_prompts=2", "ppo.save_minutes=null"]
    recipe = load_recipe(RECIPE, [*overrides, *VARIANTS[variant]]).recipe
    monitor, bare = Recorder(), peak_memory_bytes()
    monitor.explained = []
    with tempfile.TemporaryDirectory() as name:
        opened = open_trainer(recipe, inputs, Path(name), monitor)
        step = opened.trainer.ppo_step
        update = [0.0]
        for method in ("accumulate", "step"):
            setattr(step, method, timed(getattr(step, method), update))
        started = time.process_time()
        opened.trainer.train()
        seconds = time.process_time() - started
        lines = (Path(name) / "held_out.jsonl").read_text(encoding="utf-8").splitlines()
    first, last = json.loads(lines[0])["each"], json.loads(lines[-1])["each"]
    sft, policy = (np.array(each["true_reward"]) for each in (first, last))
    return {
        "prompts": len(sft),
        "gold_win_rate": float(np.mean((policy > sft) + 0.5 * (policy == sft))),
        "gold_reward": float(policy.mean()),
        "kl": float(np.mean(last["kl"])),
        "explained_variance": float(np.mean(monitor.explained[-LAST:])),
        "cpu_seconds": seconds,
        "update_cpu_seconds": update[0],
        "peak_bytes": peak_memory_bytes() - bare,
    }


def timed(function: Callable[..., Any], total: list[float]) -> Callable[..., Any]:
    """Wrap a function to add the CPU seconds of its calls to a total."""

    def call(*args: Any) -> Any:
        started = time.process_time()
        result = function(*args)
        total[0] += time.process_time() - started
        return result

    return call


def estimated(kind: str, critic: str) -> dict[str, float]:
    """Return the estimated peak bytes of an update of a base of half a billion weights."""
    from rlhfctl.plan.ppo_memory import ppo_update_peak
    from rlhfctl.plan.shadow import read_architecture
    from rlhfctl.plan.stage_memory import Planned
    from rlhfctl.plan.target import GPUS
    from rlhfctl.recipe.schema import Recipe

    ppo = {"critic": critic, "forward_batch_size": 4, "gradient_checkpointing": True}
    recipe = Recipe.model_validate({"lora": KINDS[kind], "ppo": ppo})
    planned = Planned(
        recipe, read_architecture(recipe.model, SHAPES["0.5b"].config()), GPUS["A100-80"]
    )
    return {name: float(size) for name, size in ppo_update_peak(planned).bytes.items()}


def rows(runs: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[list[str]]:
    """Return a row per variant: each figure of every seed."""

    def cell(variant: str, name: str, digits: int, scale: float = 1.0) -> str:
        return " / ".join(f"{run[name] / scale:.{digits}f}" for run in runs[variant].values())

    return [
        [
            variant,
            cell(variant, "gold_win_rate", 3),
            cell(variant, "gold_reward", 2),
            cell(variant, "kl", 2),
            cell(variant, "explained_variance", 2),
            cell(variant, "cpu_seconds", 0),
            cell(variant, "update_cpu_seconds", 0),
            cell(variant, "peak_bytes", 0, 2**20),
        ]
        for variant in runs
    ]


def run_in_process(variant: str, seed: int, inputs: Mapping[str, Path]) -> dict[str, float]:
    """Run `train` in a process of its own, whose memory is the run's alone."""
    with tempfile.TemporaryDirectory() as name:
        result = Path(name) / "result.json"
        subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.critic", "--one", variant, str(seed)),
                *(str(inputs["sft"]), str(inputs["rm"]), str(result)),
            ],
            check=True,
            cwd=ROOT,
        )
        found: dict[str, float] = json.loads(result.read_text(encoding="utf-8"))
        return found


def one(variant: str, seed: str, sft: str, rm: str, result: str) -> None:
    """Run PPO in this process and write the result."""
    found = train(variant, int(seed), {"sft": Path(sft), "rm": Path(rm)})
    Path(result).write_text(json.dumps(found), encoding="utf-8")


def measure(variants: Sequence[str], seeds: Sequence[int], folder: Path, path: Path) -> None:
    """Run what is missing in the result, write it, and print the table."""
    result: dict[str, Any] = {"machine": describe(1), "runs": {}}
    if path.exists():
        result = json.loads(path.read_text(encoding="utf-8"))
    result["estimated_bytes"] = {
        kind: {critic: estimated(kind, critic) for critic in ("adapter", "head")} for kind in KINDS
    }
    inputs = checkpoints(folder)
    for seed in seeds:
        for variant in variants:
            done = result["runs"].setdefault(variant, {})
            if str(seed) not in done:
                done[str(seed)] = run_in_process(variant, seed, inputs)
                write("critic", result, path)
    show(
        f"PPO by critic; seeds {' / '.join(map(str, seeds))}",
        ["critic", "win rate", "gold", "KL", "explained", "CPU s", "update", "MiB"],
        rows(result["runs"]),
    )
    for kind, by_critic in result["estimated_bytes"].items():
        total = {critic: sum(parts.values()) / 2**30 for critic, parts in by_critic.items()}
        print(f"{kind}: adapter {total['adapter']:.1f} GiB, head {total['head']:.1f} GiB")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs-dir", type=Path, default=CHECKPOINTS)
    parser.add_argument("--out", type=Path, default=RESULTS / "critic.json")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(*options.one)
        return
    measure(options.variants, options.seeds, options.runs_dir, options.out)


if __name__ == "__main__":
    main()
