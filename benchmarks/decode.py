"""Share of generation in PPO, and decoding speed relative to the memory bandwidth limit.

`python -m benchmarks.decode` on a CPU; on a GPU `--shape 1.5b --lora --prompt-length 128
--response-length 256`. A decoding step reads every weight and each sequence's keys and values once.
These bytes divided by the measured bandwidth are the minimum time of a step. A model that fits in
the CPU caches can exceed the limit; bandwidth is then not the bottleneck.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine, output
from benchmarks.checkpoints import make
from benchmarks.rlhfctl_ppo import run
from benchmarks.shapes import SHAPES
from benchmarks.work import Work, add_options, from_options

BITS = {"4bit": 4.5}
"""Bits per weight; NF4 including its block scales."""


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    work = from_options(options, lora=options.lora, rollouts=3)
    folder = output.CHECKPOINTS / f"{work.shape}-{'lora' if work.lora else 'full'}"
    make(work, folder)
    metrics = measure(work, folder)
    described = machine.describe(work.threads)
    rows = [
        ["share of generation", f"{metrics['share_of_generation']:.0%}"],
        ["tokens/s", f"{metrics['tokens_per_second']:.0f}"],
        ["decoding steps/s", f"{metrics['steps_per_second']:.1f}"],
        ["read bandwidth", f"{metrics['bandwidth'] / 1e9:.1f} GB/s"],
        ["bytes per step", output.megabytes(metrics["bytes_per_step"])],
        ["share of the bandwidth limit", f"{metrics['share_of_bandwidth_limit']:.1%}"],
    ]
    title = f"Generation, {work.shape}, batch {work.batch}, {machine.title(described)}"
    output.show(title, ("", ""), rows)
    result = {"machine": described, "work": work.as_json(), **metrics}
    output.write("decode", result, options.output)


def bytes_per_step(work: Work) -> float:
    """Return the bytes read per decoding step, with half of the response in the cache."""
    shape = SHAPES[work.shape]
    wide = torch.finfo(getattr(torch, work.dtype)).bits
    decoder = shape.decoder_weights * BITS.get(work.quantization, wide) / 8
    head = shape.vocab_size * shape.hidden_size * wide / 8
    keys = shape.hidden_size // shape.num_attention_heads * shape.num_key_value_heads
    tokens = work.batch * (work.prompt_length + work.response_length / 2)
    return decoder + head + 2 * shape.num_hidden_layers * keys * tokens * wide / 8


def measure(work: Work, folder: Path) -> dict[str, Any]:
    """Run PPO in this process and compare its generation with the limit."""
    phases = run(work, folder)["phases"]
    steps = work.rollouts * work.response_length / phases["generation"]
    bandwidth, needed = machine.read_bandwidth(), bytes_per_step(work)
    return {
        "share_of_generation": phases["generation"] / sum(phases.values()),
        "tokens_per_second": steps * work.batch,
        "steps_per_second": steps,
        "bandwidth": bandwidth,
        "bytes_per_step": needed,
        "share_of_bandwidth_limit": steps * needed / bandwidth,
    }


if __name__ == "__main__":
    main()
