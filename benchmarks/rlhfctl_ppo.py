"""rlhfctl's side of the comparison: its PPO trainer on random checkpoints.

`python -m benchmarks.rlhfctl_ppo WORK.json CHECKPOINTS RESULT.json`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from benchmarks.checkpoints import ALPHA, RANK
from benchmarks.meter import Meter
from benchmarks.shapes import SHAPES
from benchmarks.work import Work
from rlhfctl.models.roles import Roles, load_roles
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.recipe.load import load_recipe
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.ppo.stage import ppo_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlhfctl.recipe.schema import Recipe


def recipe_for(work: Work, folder: Path) -> Recipe:
    """Return the recipe of a workload, with every form of early stopping disabled.

    The learning rates are TRL's defaults, low enough that training does not diverge.
    """
    forward = work.minibatch if work.gradient_checkpointing else work.batch
    values: dict[str, Any] = {
        "seed": work.seed,
        "model": {
            "name_or_path": str(folder / "base"),
            "dtype": work.dtype,
            "use_liger_kernel": work.liger,
            "quantization": work.quantization,
        },
        # Never read: the benchmarks make their own batches.
        "data": {
            name: {"source": "embedded"} for name in ("demonstrations", "comparisons", "prompts")
        },
        "lora": {"r": RANK, "alpha": ALPHA} if work.lora else None,
        "generation": {
            "max_new_tokens": work.response_length,
            "max_prompt_length": work.prompt_length,
            "temperature": 1.0,
        },
        "ppo": {
            "episodes": (work.warmup + work.rollouts) * work.batch,
            "rollout_batch_size": work.batch,
            "minibatch_size": work.minibatch,
            "forward_batch_size": forward,
            "epochs": work.epochs,
            "learning_rate": 3e-6,
            "value_learning_rate": 3e-6,
            "lr_schedule": "constant",
            "warmup_rollouts": 0,
            # The default of transformers, hence of TRL.
            "optim": "adamw_torch_fused",
            "value_clip_range": 0.2,
            "kl_early_stop": None,
            "max_ratio": None,
            "kl_stop": None,
            "missing_eos_score": None,
            "samples_per_run": 0,
            "gradient_checkpointing": work.gradient_checkpointing,
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_recipe(path).recipe


def roles_for(work: Work, recipe: Recipe, folder: Path) -> Roles:
    """Load the four roles; the stop token is outside the vocabulary, so it is never sampled."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    unreachable = SHAPES[work.shape].vocab_size
    return load_roles(
        recipe,
        tokenizer,
        [unreachable],
        folder / "sft",
        [folder / "rm"],
        critic="reward_model",
        gradient_checkpointing=recipe.ppo.gradient_checkpointing,
    )


class _Marks(NullMonitor):
    """Monitor that marks the start and the end of each rollout on a meter."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.last: Mapping[str, float] = {}

    def start(self, stage: str, total: int, unit: str) -> None:
        self.meter.mark()

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        self.meter.mark()
        if self.meter.wall:
            phases = self.meter.phases
            phases["collection"] += metrics["rollout_seconds"]
            phases["update"] += metrics["update_seconds"]
        self.last = metrics


class _TimedRoles:
    """Roles whose sampling is timed as the phase "generation"."""

    def __init__(self, roles: Any, meter: Meter) -> None:
        self._roles = roles
        self.generate = meter.timed("generation", roles.generate)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._roles, name)


def run(work: Work, folder: Path) -> dict[str, Any]:
    """Run the workload and return its metrics, with seconds of generation, scoring and update."""
    torch.set_num_threads(work.threads)
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    recipe = recipe_for(work, folder)
    meter = Meter(work.warmup)
    roles = roles_for(work, recipe, folder)
    monitor = _Marks(meter)
    PPOTrainer(_TimedRoles(roles, meter), prompts, ppo_settings(recipe), monitor).train()
    metrics = meter.metrics()
    phases = metrics["phases"]
    phases["scoring"] = phases.pop("collection") - phases["generation"]
    lengths = float(monitor.last["response_length"])
    if lengths != work.response_length:
        raise RuntimeError(f"responses are {lengths} tokens, not {work.response_length}")
    updates = monitor.last["updates"]
    if updates != work.epochs * work.minibatches:
        raise RuntimeError(f"{updates} updates per rollout, not {work.epochs * work.minibatches}")
    return metrics


if __name__ == "__main__":
    result = run(Work.read(Path(sys.argv[1])), Path(sys.argv[2]))
    Path(sys.argv[3]).write_text(json.dumps(result), encoding="utf-8")
