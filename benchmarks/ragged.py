"""Speed-up from removing finished rows from the batch during sampling.

`python -m benchmarks.ragged` on a CPU; on a GPU `--shape 1.5b --quantization 4bit --prompt-length 128
--response-length 256`. The number of stop tokens is such that the mean length of the random model's
responses is a third of the limit, as with a policy whose responses vary in length. Both methods
alternate in one process, with the same prompts and random numbers; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from benchmarks import machine, output
from benchmarks.checkpoints import make
from benchmarks.meter import synchronize
from benchmarks.rlhfctl_ppo import recipe_for, roles_for
from benchmarks.shapes import SHAPES
from benchmarks.work import add_options, from_options
from rlhfctl.models import generation

if TYPE_CHECKING:
    from benchmarks.work import Work

SHARE = 3
"""Response length limit divided by the mean length."""
WAYS = {"whole batch to the end": 2.0, "ended rows leave": generation.ENOUGH}


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--runs", type=int, default=7, help="runs per method, alternating")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    work = from_options(options, lora=True)
    folder = output.CHECKPOINTS / f"{work.shape}-lora"
    make(work, folder)
    metrics = measure(work, folder, options.runs)
    described = machine.describe(work.threads)
    rows = [[name, f"{seconds:.2f}"] for name, seconds in metrics["seconds"].items()]
    rows.append(["mean response length", f"{metrics['mean_length']:.1f}"])
    title = f"Sampling, {work.shape}, batch {work.batch}, {machine.title(described)}"
    output.show(title, ("", "s"), rows, f"{metrics['ratio']:.2f} times as fast")
    output.write(
        "ragged", {"machine": described, "work": work.as_json(), **metrics}, options.output
    )


def measure(work: Work, folder: Path, runs: int) -> dict[str, Any]:
    """Alternate both methods after one warm-up run of each, and return median seconds."""
    torch.set_num_threads(work.threads)
    roles = roles_for(work, recipe_for(work, folder), folder)
    stops = SHAPES[work.shape].vocab_size * SHARE // work.response_length
    roles = replace(roles, stop_token_ids=tuple(range(1, 1 + stops)))
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))[: work.batch]
    seconds: dict[str, list[float]] = defaultdict(list)
    samples: list[list[list[int]]] = []
    for name, enough in [*WAYS.items()] * (runs + 1):
        with patch.object(generation, "ENOUGH", enough):
            synchronize()
            start = time.perf_counter()
            responses = roles.generate(prompts, [(0, row) for row in range(len(prompts))])
            synchronize()
            seconds[name].append(time.perf_counter() - start)
        samples.append(responses)
    medians = {name: statistics.median(timings[1:]) for name, timings in seconds.items()}
    whole, leaving = medians.values()
    return {
        "seconds": medians,
        "ratio": whole / leaving,
        "mean_length": statistics.mean(map(len, samples[0])),
        "same_responses": all(responses == samples[0] for responses in samples),
    }


if __name__ == "__main__":
    main()
