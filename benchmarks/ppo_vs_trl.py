"""Speed of PPO compared with TRL 1.12.0: same weights, prompts, lengths, batches and steps.

`python -m benchmarks.ppo_vs_trl` after `make build/bench-trl/.set-up`, or `make bench` for both.

The sides alternate for several runs, each in a separate process. Only the training loop is timed,
from the end of the first rollout, without imports, loading and warm-up. The medians are compared.
`trl_peer/run.py` lists the differences of TRL. rlhfctl in addition makes one more scoring pass (it
recomputes log-probabilities), clips gradients, checks finiteness and computes metrics.

With LoRA (`--only lora`) the comparison is not exact: rlhfctl's critic is an adapter, while TRL's
value model trains all its weights.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks import machine, output, roofline
from benchmarks.checkpoints import make
from benchmarks.work import Work, add_options, from_options

if TYPE_CHECKING:
    from collections.abc import Mapping

PEER = output.ROOT / "build" / "bench-trl" / "bin" / "python"
BAR = 1.5


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--only", choices=("full", "lora"), help="run one of the two comparisons")
    parser.add_argument("--runs", type=int, default=3, help="runs per side, alternating")
    parser.add_argument(
        "--peer", type=Path, default=PEER, help="Python interpreter of the TRL environment"
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if not options.peer.exists():
        parser.error(f"there is no {options.peer}; run make build/bench-trl/.set-up")
    comparisons = {}
    for name in (options.only,) if options.only else ("full", "lora"):
        work = from_options(options, lora=name == "lora")
        folder = output.CHECKPOINTS / f"{work.shape}-{name}"
        make(work, folder)
        comparisons[name] = compare(work, folder, options.peer, options.runs)
    described = machine.describe(work.threads)
    _print(comparisons, described)
    output.write("ppo_vs_trl", {"machine": described, "comparisons": comparisons}, options.output)


def compare(work: Work, folder: Path, peer: Path, runs: int) -> dict[str, Any]:
    """Run both sides alternately and return medians, ratio and roofline."""
    sides: dict[str, list[dict[str, Any]]] = {"rlhfctl": [], "trl": []}
    for _ in range(runs):
        sides["rlhfctl"].append(output.in_process("benchmarks.rlhfctl_ppo", work, folder))
        sides["trl"].append(output.in_process("benchmarks.trl_peer.run", work, folder, python=peer))
    medians = {name: summarise(work, results) for name, results in sides.items()}
    torch.set_num_threads(work.threads)
    return {
        "work": work.as_json(),
        "medians": medians,
        "ratio": medians["rlhfctl"]["episodes_per_second"] / medians["trl"]["episodes_per_second"],
        "roofline": against_roofline(work, medians["rlhfctl"]["phases"]),
        "runs": sides,
    }


def summarise(work: Work, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians over several runs of one side."""

    def median(values: list[float]) -> float:
        return float(statistics.median(values))

    return {
        "episodes_per_second": median([work.episodes / sum(run["seconds"]) for run in results]),
        "episodes_per_cpu_second": median(
            [work.episodes / sum(run["cpu_seconds"]) for run in results]
        ),
        "peak_bytes": median([run["peak_bytes"] for run in results]),
        "working_bytes": median([run["peak_bytes"] - run["start_bytes"] for run in results]),
        "phases": {
            phase: median([run["phases"][phase] for run in results])
            for phase in results[0]["phases"]
        },
    }


def against_roofline(work: Work, phases: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return seconds, operations and shares of the machine's matrix throughput by phase."""
    flops, rates = roofline.phase_flops(work), roofline.shape_flops(work)
    peak = machine.peak_flops(getattr(torch, work.dtype))
    return {
        phase: {
            "seconds": phases[phase],
            "share_of_time": phases[phase] / sum(phases.values()),
            "flops": flops[phase],
            "share_of_peak": flops[phase] / peak / phases[phase],
            "share_of_matmul_at_shapes": flops[phase] / rates[phase] / phases[phase],
        }
        for phase in roofline.PHASES
    } | {"machine": {"peak_flops": peak, **{f"{p}_flops": r for p, r in rates.items()}}}


def _print(comparisons: dict[str, Any], described: dict[str, Any]) -> None:
    rows = []
    for name, comparison in comparisons.items():
        for side, medians in comparison["medians"].items():
            rows.append(
                [
                    f"{name}: {side}",
                    f"{medians['episodes_per_second']:.1f}",
                    f"{medians['episodes_per_cpu_second']:.1f}",
                    output.megabytes(medians["working_bytes"]),
                    f"{comparison['ratio']:.2f}" if side == "rlhfctl" else "1",
                ]
            )
    columns = ("", "episodes/s", "episodes/CPU s", "memory beyond start", "times TRL")
    output.show(f"PPO, {machine.title(described)}", columns, rows, f"bar: {BAR} times TRL")
    for name, comparison in comparisons.items():
        lines = [
            [
                phase,
                f"{metrics['seconds']:.2f}",
                f"{metrics['share_of_time']:.0%}",
                f"{metrics['flops'] / 1e9:.0f}",
                f"{metrics['share_of_peak']:.0%}",
                f"{metrics['share_of_matmul_at_shapes']:.0%}",
            ]
            for phase, metrics in comparison["roofline"].items()
            if phase != "machine"
        ]
        heads = ("phase", "s", "of time", "GFLOP", "of peak", "of matmul at these shapes")
        output.show(f"Where rlhfctl's time goes: {name}", heads, lines)


if __name__ == "__main__":
    main()
