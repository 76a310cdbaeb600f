"""The same small recipe with rollouts by transformers and by vLLM: what is learned, and mismatch.

    make vllm
    python -m benchmarks.engines --seeds 3

Each seed trains SFT and a reward model once, then PPO by either engine, then evaluates both policies
on the same prompts. One vLLM server, started from build/vllm, serves all seeds. On a CPU this shows
that both engines learn the same; seconds there say nothing about a GPU. The result is
benchmarks/results/engines.json, to which a run with more seeds adds.
"""

from __future__ import annotations

import argparse
import importlib
import json
import socket
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import sem, t

from benchmarks.machine import describe
from benchmarks.output import CHECKPOINTS, RESULTS, ROOT, show, write
from rlhfctl.recipe.load import load_recipe
from rlhfctl.recipe.view import view
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.run.vllm_environment import find_python, vllm_version
from rlhfctl.stage_table import stage_named
from rlhfctl.stages.ppo.vllm_client import Server
from rlhfctl.stages.ppo.vllm_server import VLLMServer, server_command, server_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RECIPE = ROOT / "recipes" / "base.yaml"
SMALL = [
    "data.demonstrations.max_rows=1000",
    "data.comparisons.max_rows=1500",
    "data.prompts.max_rows=1500",
    "reward_model.calibration_samples=128",
    "generation.max_new_tokens=24",
    "ppo.episodes=1536",
    "ppo.eval_rollouts=null",
    "ppo.gate=warn",
    "evaluation.num_prompts=128",
]
ENGINES = ("transformers", "vllm")
COMPARED = ("win_rate", "policies.ppo.proxy", "policies.ppo.gold", "policies.ppo.kl")


class Recorder(NullMonitor):
    """Keeps the metrics of every step."""

    def __init__(self) -> None:
        self.logged: list[Mapping[str, float]] = []

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Keep the metrics of a step."""
        self.logged.append(metrics)

    def warn(self, message: str) -> None:
        """Print a warning, such as of a server that failed."""
        print(message, flush=True)


@contextmanager
def server() -> Iterator[str]:
    """Run a vLLM server with the recipe's base, and return its address; its log is in build/."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    recipe, python = load_recipe(RECIPE, SMALL).recipe, find_python(None)
    command = server_command(recipe, python, ["--host", "127.0.0.1", "--port", str(port)])
    address = Server(f"http://127.0.0.1:{port}")
    CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    log = CHECKPOINTS / "engines.log"
    log.unlink(missing_ok=True)
    started = VLLMServer(command, server_environment(), address, log, 600.0)
    try:
        started.start()
        yield address.url
    finally:
        started.end()


def run_stage(
    name: str, overrides: list[str], inputs: dict[str, Path], output: Path
) -> tuple[dict[str, Any], list[Mapping[str, float]]]:
    """Run a stage; return its metrics and those of its steps."""
    stage, recorder = stage_named(name), Recorder()
    module = importlib.import_module(f"rlhfctl.stages.{stage.module}.stage")
    recipe = view(load_recipe(RECIPE, [*SMALL, *overrides]).recipe, stage)
    output.mkdir(parents=True)
    chosen = {need: folder for need, folder in inputs.items() if need in stage.accepts}
    return module.run(recipe, chosen, output, recorder).metrics, recorder.logged


def at(metrics: dict[str, Any], path: str) -> list[float]:
    """Return a metric with the ends of its 95 % interval."""
    *sections, name = path.split(".")
    for section in sections:
        metrics = metrics[section]
    return [float(metrics[key]) for key in (name, f"{name}_low", f"{name}_high")]


def measure(engine: str, overrides: list[str], inputs: dict[str, Path], folder: Path) -> Any:
    """Run PPO and its evaluation; return what they measured."""
    started = time.perf_counter()
    _, logged = run_stage("ppo", overrides, inputs, folder / engine)
    seconds = time.perf_counter() - started
    result, _ = run_stage(
        "eval", overrides, inputs | {"ppo": folder / engine}, folder / f"eval-{engine}"
    )
    measured: dict[str, Any] = {name: at(result, name) for name in COMPARED}
    measured |= {
        "last_score": logged[-1]["score"],
        "last_kl": logged[-1]["kl"],
        "seconds": seconds,
        "rollout_seconds": sum(metrics["rollout_seconds"] for metrics in logged),
    }
    if engine == "vllm":
        measured["mismatch_mean"] = [metrics["engine_mismatch"] for metrics in logged]
        measured["mismatch_max"] = max(metrics["engine_mismatch_max"] for metrics in logged)
    return measured


def measured_before(path: Path) -> dict[str, dict[str, Any]]:
    """Return the seeds of an earlier result of the same recipe."""
    if not path.is_file():
        return {}
    earlier = json.loads(path.read_text(encoding="utf-8"))
    return dict(earlier["seeds"]) if earlier["recipe"] == SMALL else {}


def over_seeds(runs: dict[str, dict[str, Any]], name: str) -> list[float]:
    """Return vLLM minus transformers with its 95 % interval over seeds, by paired t; at least two."""
    values = [
        engines["vllm"][name][0] - engines["transformers"][name][0] for engines in runs.values()
    ]
    low, high = t.interval(0.95, len(values) - 1, np.mean(values), sem(values))
    return [float(np.mean(values)), float(low), float(high)]


def main() -> None:
    """Parse the command line, run every missing seed by both engines, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "engines.json")
    options = parser.parse_args()

    torch.set_num_threads(1)
    runs = measured_before(options.out)
    result = {"machine": describe(1), "vllm": vllm_version(find_python(None)), "recipe": SMALL}
    missing = [seed for seed in range(options.seeds) if str(seed) not in runs]
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        address = stack.enter_context(server()) if missing else ""
        for seed in missing:
            runs[str(seed)] = by_both(seed, address, Path(scratch, str(seed)))
            write("engines", result | {"seeds": runs}, options.out)
    differences = {name: over_seeds(runs, name) for name in COMPARED}
    write("engines", result | {"seeds": runs, "differences": differences}, options.out)
    rows = [
        [
            f"{seed} {engine}",
            *(interval(measured[name]) for name in COMPARED),
            f"{measured.get('mismatch_max', 0.0):.1e}",
            f"{measured['rollout_seconds']:.0f}",
        ]
        for seed, engines in runs.items()
        for engine, measured in engines.items()
    ]
    rows.append(["vllm - transformers", *map(interval, differences.values()), "", ""])
    columns = ["seed, engine", "win rate", "score", "gold", "KL", "mismatch", "rollouts, s"]
    note = "95 % intervals: over prompts; of differences over seeds. CPU: no speed test."
    show("PPO by either engine", columns, rows, note)


def by_both(seed: int, address: str, folder: Path) -> dict[str, Any]:
    """Train SFT and reward model of a seed, then measure both engines."""
    inputs: dict[str, Path] = {}
    for stage in ("sft", "rm"):
        run_stage(stage, [f"seed={seed}"], inputs, folder / stage)
        inputs[stage] = folder / stage
    vllm = ["ppo.engine=vllm", f"ppo.vllm.server_base_url={address}"]
    return {
        engine: measure(
            *(engine, [f"seed={seed}", *(vllm if engine == "vllm" else [])], inputs, folder)
        )
        for engine in ENGINES
    }


def interval(numbers: list[float]) -> str:
    """Format a value with its interval."""
    return "{:.2f} ({:.2f} to {:.2f})".format(*numbers)


if __name__ == "__main__":
    main()
