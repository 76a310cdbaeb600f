"""Workload of a PPO benchmark, identical for every trainer."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


@dataclass(frozen=True)
class Work:
    """PPO rollouts with random weights and random prompts.

    Attributes:
        shape: Name in `benchmarks.shapes.SHAPES`.
        lora: Train adapters of rank 16 on all linear layers instead of all weights.
        quantization: Quantization of the base model, none or 4bit.
        dtype: Data type of the base model.
        prompt_length: Tokens per prompt.
        response_length: Tokens per response; there is no stop token.
        batch: Episodes per rollout.
        minibatches: Optimiser steps per epoch.
        epochs: Passes over a rollout.
        rollouts: Timed rollouts.
        warmup: Untimed rollouts before the timed ones.
        gradient_checkpointing: Recompute activations in the backward pass.
        threads: Threads of torch on a CPU.
        seed: Seed of weights and prompts.
        liger: Use Liger's kernels.
    """

    shape: str = "tiny"
    lora: bool = False
    quantization: str = "none"
    dtype: str = "float32"
    prompt_length: int = 16
    response_length: int = 48
    batch: int = 64
    minibatches: int = 4
    epochs: int = 4
    rollouts: int = 10
    warmup: int = 1
    gradient_checkpointing: bool = False
    threads: int = 1
    seed: int = 0
    liger: bool = False

    @property
    def minibatch(self) -> int:
        """Episodes per optimiser step."""
        return self.batch // self.minibatches

    @property
    def length(self) -> int:
        """Tokens per episode."""
        return self.prompt_length + self.response_length

    @property
    def episodes(self) -> int:
        """Episodes in the timed rollouts."""
        return self.rollouts * self.batch

    def but(self, **changes: Any) -> Work:
        """Return a copy with some values changed."""
        return replace(self, **changes)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> Work:
        """Read a JSON file of `as_json`."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each field of `Work`; None means its default."""
    from benchmarks.shapes import SHAPES

    parser.add_argument("--shape", choices=sorted(SHAPES), help="size of the random model")
    parser.add_argument("--quantization", choices=("none", "4bit"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    for name in ("prompt-length", "response-length", "batch", "minibatches", "epochs", "rollouts"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--gradient-checkpointing", action="store_true", default=None)
    parser.add_argument("--threads", type=int, help="threads of torch on a CPU; default: all cores")


def from_options(options: argparse.Namespace, **defaults: Any) -> Work:
    """Return the workload of a command line, with a benchmark's own defaults.

    On a GPU the default dtype of the base model is bfloat16.
    """
    import torch

    base: dict[str, Any] = {"threads": len(os.sched_getaffinity(0)), **defaults}
    if torch.cuda.is_available():
        base.setdefault("dtype", "bfloat16")
    fields = Work.__dataclass_fields__
    chosen = {name: value for name, value in vars(options).items() if name in fields}
    return Work(**(base | {name: value for name, value in chosen.items() if value is not None}))
