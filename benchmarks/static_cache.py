"""Sampling with a static cache and a compiled pass, against the default, in one process.

`python -m benchmarks.static_cache` on a CPU; on a GPU `--shape 1.5b --lora --prompt-length 128
--response-length 256`. Both sample the same responses of full length, in turn. The first call, which
compiles, is timed on its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks import machine, output
from benchmarks.checkpoints import make
from benchmarks.rlhfctl_ppo import recipe_for, roles_for
from benchmarks.work import Work, add_options, from_options

if TYPE_CHECKING:
    from rlhfctl.models.roles import Roles

RUNS = 9


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    work = from_options(options, lora=options.lora)
    folder = output.CHECKPOINTS / f"{work.shape}-{'lora' if work.lora else 'full'}"
    make(work, folder)
    metrics = measure(work, folder)
    described = machine.describe(work.threads)
    rows = [
        [
            name,
            *(
                f"{metrics[name][key]:,.4g}"
                for key in ("seconds", "cpu_seconds", "tokens_per_second")
            ),
        ]
        for name in ("dynamic", "static")
    ]
    title = f"Sampling, {work.shape}, batch {work.batch}, {machine.title(described)}"
    output.show(title, ("cache", "s per batch", "CPU s", "tokens/s"), rows)
    print(
        f"static: {metrics['times_faster']:.2f} times as fast, after {metrics['first_seconds']:.1f} s"
    )
    output.write(
        "static_cache", {"machine": described, "work": work.as_json(), **metrics}, options.output
    )


def measure(work: Work, folder: Path) -> dict[str, Any]:
    """Sample by either cache in turn; return medians, and the seconds of the compiling call.

    Raises:
        RuntimeError: The responses of more than one row in ten differ.
    """
    torch.set_num_threads(work.threads)
    dynamic = roles_for(work, recipe_for(work, folder), folder)
    sides = {"dynamic": dynamic, "static": replace(dynamic, static_cache=True)}
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))[: work.batch]
    first = {name: _timed(roles, prompts) for name, roles in sides.items()}
    _require_alike(first["dynamic"][2], first["static"][2])
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(RUNS):
        for name, roles in sides.items():
            times[name].append(_timed(roles, prompts)[:2])
    result: dict[str, Any] = {"first_seconds": first["static"][0]}
    for name, pairs in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
        tokens = work.batch * work.response_length
        result[name] = {"seconds": wall, "cpu_seconds": cpu, "tokens_per_second": tokens / wall}
    result["times_faster"] = result["dynamic"]["seconds"] / result["static"]["seconds"]
    return result


def _timed(roles: Roles, prompts: list[list[int]]) -> tuple[float, float, list[list[int]]]:
    seeds = [(0, row) for row in range(len(prompts))]
    wall, cpu = time.perf_counter(), time.process_time()
    responses = roles.generate(prompts, seeds)
    return time.perf_counter() - wall, time.process_time() - cpu, responses


def _require_alike(responses: list[list[int]], others: list[list[int]]) -> None:
    """Allow for a rare token whose uniform number lies within rounding of a boundary."""
    different = sum(a != b for a, b in zip(responses, others, strict=True))
    if different > len(responses) / 10:
        raise RuntimeError(f"{different} of {len(responses)} responses differ between the caches")


if __name__ == "__main__":
    main()
