"""What a benchmark asks a PPO trainer to do, the same for every trainer."""

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
    """A number of PPO rollouts over random weights and random prompts.

    Attributes:
        shape: A name of `benchmarks.shapes.SHAPES`.
        lora: Adapters of rank 16 on all linear layers; else all weights are trained.
        quantization: none or 4bit, of the base.
        dtype: Of the base.
        prompt_length: In tokens, of every prompt.
        response_length: In tokens, of every response: no token ends one.
        batch: Episodes a rollout.
        minibatches: Optimiser steps an epoch.
        epochs: Passes over a rollout.
        rollouts: Timed ones.
        warmup: Rollouts before them, which are not timed.
        gradient_checkpointing: Recompute activations in the backward pass.
        threads: Of torch, on a CPU.
        seed: Of weights and prompts.
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

    @property
    def minibatch(self) -> int:
        """Episodes an optimiser step."""
        return self.batch // self.minibatches

    @property
    def length(self) -> int:
        """Tokens of an episode."""
        return self.prompt_length + self.response_length

    @property
    def episodes(self) -> int:
        """Of the timed rollouts."""
        return self.rollouts * self.batch

    def but(self, **changes: Any) -> Work:
        """Return the same work with some numbers changed."""
        return replace(self, **changes)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> Work:
        """Read what `as_json` gave from a file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each number of `Work`, where None stands for its default."""
    from benchmarks.shapes import SHAPES

    parser.add_argument("--shape", choices=sorted(SHAPES), help="size of the random model")
    parser.add_argument("--quantization", choices=("none", "4bit"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    for name in ("prompt-length", "response-length", "batch", "minibatches", "epochs", "rollouts"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--gradient-checkpointing", action="store_true", default=None)
    parser.add_argument("--threads", type=int, help="of torch on a CPU; default: all cores")


def from_options(options: argparse.Namespace, **defaults: Any) -> Work:
    """Return the work that a command line asks for, over a benchmark's own defaults.

    On a GPU the base is in bfloat16 unless something else is asked for.
    """
    import torch

    base: dict[str, Any] = {"threads": len(os.sched_getaffinity(0)), **defaults}
    if torch.cuda.is_available():
        base.setdefault("dtype", "bfloat16")
    fields = Work.__dataclass_fields__
    given = {name: value for name, value in vars(options).items() if name in fields}
    return Work(**(base | {name: value for name, value in given.items() if value is not None}))
