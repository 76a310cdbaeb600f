"""The longest responses of PPO that fit on one GPU, by shape of the base, estimated.

`python -m benchmarks.longest_responses` prints the table of docs/how-to/memory.md and writes
benchmarks/results/longest_responses.json. It needs no GPU: memory is that of `rlhfctl plan --longest`,
from the configuration alone. Nothing is measured.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import output
from benchmarks.shapes import SHAPES, Shape

POSITIONS = 32_768
MODELS = {
    "0.5B (Qwen2.5)": SHAPES["0.5b"],
    "1.5B (Qwen2.5)": SHAPES["1.5b"],
    "3B (Qwen2.5)": Shape(151_936, 2048, 11_008, 36, 16, 2, family="qwen2"),
    "8B (Llama 3.1)": SHAPES["8b"],
}
BASES = {"bf16": "none", "4 bits": "4bit"}
RECIPE: dict[str, Any] = {
    "lora": {"r": 16, "alpha": 32},
    "generation": {"max_prompt_length": 512},
    "ppo": {
        "rollout_batch_size": 64,
        "minibatch_size": 32,
        "forward_batch_size": 1,
        "gradient_checkpointing": True,
    },
}
"""Settings of every cell."""


def longest(shape: Shape, quantization: str) -> dict[int, int]:
    """Return tokens of the longest response per GPU size in GB; 0 where none fits."""
    from rlhfctl.plan.longest import longest_responses
    from rlhfctl.plan.shadow import read_architecture
    from rlhfctl.plan.stage_memory import Planned
    from rlhfctl.plan.target import GPUS
    from rlhfctl.recipe.schema import Recipe

    recipe = Recipe.model_validate(RECIPE | {"model": {"quantization": quantization}})
    config = shape.config()
    config.max_position_embeddings = POSITIONS
    planned = Planned(recipe, read_architecture(recipe.model, config), GPUS["A10"])
    return longest_responses(planned)


def rows(models: list[str]) -> dict[str, dict[str, dict[int, int]]]:
    """Return model -> precision of the base -> GPU size -> tokens."""
    found: dict[str, dict[str, dict[int, int]]] = {}
    for name in models:
        for title, quantization in BASES.items():
            tokens = longest(MODELS[name], quantization)
            found.setdefault(name, {})[title] = tokens
            print(_line(name, title, tokens), flush=True)
    return found


def table(found: dict[str, dict[str, dict[int, int]]]) -> str:
    """Return the table in Markdown."""
    head = ["| Base | Weights | 16 GB | 24 GB | 80 GB |", "| --- | --- | ---: | ---: | ---: |"]
    lines = [
        _line(name, title, tokens)
        for name, bases in found.items()
        for title, tokens in bases.items()
    ]
    return "\n".join([*head, *lines])


def _line(name: str, title: str, tokens: dict[int, int]) -> str:
    cells = [f"{count:,}" if count else "none fits" for count in tokens.values()]
    return f"| {name} | {title} | {' | '.join(cells)} |"


def main() -> None:
    """Compute, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=[*MODELS], default=[*MODELS])
    parser.add_argument("--output", type=Path, default=output.RESULTS / "longest_responses.json")
    arguments = parser.parse_args()
    found = rows(arguments.models)
    arguments.output.write_text(
        json.dumps({"settings": RECIPE, "tokens": found}, indent=1) + "\n", encoding="utf-8"
    )
    print(table(found))


if __name__ == "__main__":
    main()
