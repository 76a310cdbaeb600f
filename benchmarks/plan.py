"""Estimates of `rlhfctl plan` against measured peaks, on random models of six kinds.

`python -m benchmarks.plan` on a CPU. Every stage trains two real optimizer steps at its greatest length,
each in a process of its own; the peak is of resident memory minus the libraries. The estimate
sees the configuration only. `--measured FILE` takes the measured peaks from an earlier result, after a
change of the estimate alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import machine, output
from benchmarks.checkpoints import write_tokenizer
from benchmarks.shapes import Shape
from rlhfctl.plan.probe import measure
from rlhfctl.recipe.load import load_recipe

BAR = 0.15
MEASURED = ("sft", "rm", "ppo", "dpo")
MEDIUM = Shape(8192, 512, 1408, 8, 8, 8)
GROUPED = Shape(8192, 768, 2048, 6, 12, 2)
WIDE = Shape(4096, 1024, 2816, 6, 16, 16)
VOCABULARY = Shape(100_000, 256, 704, 4, 4, 4)


@dataclass(frozen=True)
class Case:
    """One recipe.

    Attributes:
        shape: Base model.
        rows: Rows (pairs, episodes) per forward pass.
        prompt: Tokens of a prompt.
        response: Tokens of a response.
        overrides: Further recipe keys.
    """

    shape: Shape
    rows: int
    prompt: int
    response: int
    overrides: dict[str, Any] = field(default_factory=dict)


CASES = {
    "LoRA": Case(MEDIUM, 8, 128, 64),
    "grouped queries": Case(GROUPED, 6, 128, 64),
    "all weights": Case(MEDIUM, 8, 96, 64, {"lora": None}),
    "4-bit NF4": Case(WIDE, 4, 128, 64, {"model.quantization": "4bit"}),
    "checkpointing": Case(
        MEDIUM,
        *(8, 256, 64),
        {f"{name}.gradient_checkpointing": True for name in ("sft", "reward_model", "ppo", "dpo")},
    ),
    "long prompt": Case(MEDIUM, 2, 1024, 64),
    "large vocabulary": Case(VOCABULARY, 4, 64, 128),
}


def values_of(case: Case, folder: Path) -> dict[str, Any]:
    """Return the recipe of a case over the base model in `folder`."""
    length = case.prompt + case.response
    supervised = {
        "per_device_train_batch_size": case.rows,
        "per_device_eval_batch_size": case.rows,
        "gradient_accumulation_steps": 2,
        "max_length": length,
        "learning_rate": 1e-5,
    }
    values: dict[str, Any] = {
        "model": {"name_or_path": str(folder)},
        # Never read: the probe makes its own rows.
        "data": {
            name: {"source": "embedded"} for name in ("demonstrations", "comparisons", "prompts")
        },
        "generation": {"max_prompt_length": case.prompt, "max_new_tokens": case.response},
        "sft": dict(supervised),
        "reward_model": supervised | {"per_device_train_batch_size": max(1, case.rows // 2)},
        "dpo": supervised | {"per_device_train_batch_size": max(1, case.rows // 2)},
        "ppo": {
            "episodes": 2 * case.rows,
            "rollout_batch_size": 2 * case.rows,
            "minibatch_size": case.rows,
            "forward_batch_size": max(1, case.rows // 2),
            "learning_rate": 1e-6,
            "eval_rollouts": None,
        },
    }
    for key, value in case.overrides.items():
        section, _, name = key.rpartition(".")
        (values[section] if section else values)[name] = value
    return values


def write_base(shape: Shape, folder: Path) -> None:
    """Write a random base model with its tokenizer."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(shape.config()).save_pretrained(folder)
    write_tokenizer(shape.vocab_size, folder)


def compare(case: Case, peaks: dict[str, int] | None = None) -> dict[str, dict[str, int]]:
    """Return estimated and measured bytes per stage.

    Args:
        case: Recipe.
        peaks: Measured bytes per stage; None measures them.
    """
    from rlhfctl.plan.estimates import training_peak
    from rlhfctl.plan.shadow import read_architecture
    from rlhfctl.plan.stage_memory import Planned
    from rlhfctl.plan.target import target_named

    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        write_base(case.shape, base)
        path = Path(name) / "recipe.yaml"
        path.write_text(yaml.safe_dump(values_of(case, base)), encoding="utf-8")
        recipe = load_recipe(path).recipe
        planned = Planned(recipe, read_architecture(recipe.model), target_named(None))
        estimates = {stage: training_peak(planned, stage) for stage in MEASURED}
        if peaks is None:
            peaks = {stage: found.peak for stage, found in measure(recipe, MEASURED).items()}
    return {
        stage: {"estimated_bytes": estimates[stage], "measured_bytes": peaks[stage]}
        for stage in MEASURED
    }


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=[*CASES], action="append", help="one case; repeatable")
    parser.add_argument("--measured", type=Path, help="an earlier result, for its measured peaks")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    earlier = json.loads(options.measured.read_text("utf-8")) if options.measured else None
    results = {}
    for name in options.only or CASES:
        peaks = None
        if earlier is not None:
            peaks = {s: found["measured_bytes"] for s, found in earlier["cases"][name].items()}
        results[name] = compare(CASES[name], peaks)
        print(name, results[name], flush=True)
    described = machine.describe(torch.get_num_threads())
    rows = [
        [
            *(name, stage),
            *(output.megabytes(float(peak)) for peak in peaks.values()),
            f"{peaks['estimated_bytes'] / peaks['measured_bytes'] - 1:+.1%}",
        ]
        for name, stages in results.items()
        for stage, peaks in stages.items()
    ]
    output.show(
        f"Peak memory, estimated and measured, {machine.title(described)}",
        ("case", "stage", "estimated", "measured", "difference"),
        rows,
        f"bar: {BAR:.0%}",
    )
    output.write("plan", {"machine": described, "cases": results}, options.output)


if __name__ == "__main__":
    main()
