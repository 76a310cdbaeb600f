"""PPO with Liger's kernels against PPO without, in processes of their own; needs a GPU.

`python -m benchmarks.liger --shape 1.5b --lora --prompt-length 128 --response-length 256`
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks import machine, output
from benchmarks.checkpoints import make
from benchmarks.ppo_vs_trl import summarise
from benchmarks.work import Work, add_options, from_options


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--runs", type=int, default=1, help="runs per side, alternating")
    parser.add_argument(
        "--without", action="store_true", help="rehearse: no kernels on either side"
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    work = from_options(options, lora=options.lora, rollouts=3)
    folder = output.CHECKPOINTS / f"{work.shape}-{'lora' if work.lora else 'full'}"
    make(work, folder)
    metrics = measure(work, folder, options.runs, liger=not options.without)
    described = machine.describe(work.threads)
    rows = [
        [name, f"{side['episodes_per_second']:.2f}", output.megabytes(side["working_bytes"])]
        for name, side in metrics["sides"].items()
    ]
    title = f"PPO, {work.shape}, {machine.title(described)}"
    output.show(title, ("layers", "episodes/s", "memory beyond the start"), rows)
    result = {"machine": described, "work": work.as_json(), **metrics}
    output.write("liger", result, options.output)


def measure(work: Work, folder: Path, runs: int, *, liger: bool) -> dict[str, Any]:
    """Run both sides alternately; return medians and ratios."""
    works = {"transformers": work, "Liger": work.but(liger=liger)}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in works}
    for _ in range(runs):
        for name, one in works.items():
            results[name].append(output.in_process("benchmarks.rlhfctl_ppo", one, folder))
    sides = {name: summarise(work, results[name]) for name in works}
    plain, liger_side = sides["transformers"], sides["Liger"]
    return {
        "sides": sides,
        "times_faster": liger_side["episodes_per_second"] / plain["episodes_per_second"],
        "times_memory": liger_side["working_bytes"] / plain["working_bytes"],
    }


if __name__ == "__main__":
    main()
