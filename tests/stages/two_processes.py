"""Training of a small run in one process or in several: `train`, called in each of them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhfctl.models.sharding import average_gradients
from rlhfctl.ppo.processes import Processes
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.recipe.schema import Recipe
from rlhfctl.run.monitor import Monitor, NullMonitor
from rlhfctl.stages.ppo import stage as ppo
from rlhfctl.stages.reward_model import stage as reward_model
from rlhfctl.stages.sft import stage as sft
from rlhfctl.stages.shared import gold, hf_training
from tests.conftest import GOLD_PAIRS, tiny_recipe
from tests.ppo.toy import Bandit, Cut, Dying, HeadBandit, bandit_settings

Metrics = dict[str, dict[str, Any]]
Steps = dict[str, list[dict[str, float]]]
# numbers of rows whose training part the batches divide
ROWS = (
    "data.demonstrations.max_rows=72",
    "data.comparisons.max_rows=77",
    "data.comparisons.held_out=0.1",
)
WHOLE_BATCH = 16
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
STAGES = {"sft": sft.run, "rm": reward_model.run, "ppo": ppo.run}
# Adam divides a gradient by its own size, and so makes whole steps of the rounding where it is 0.
SMOOTH = (
    "sft.optim=sgd",
    "sft.learning_rate=0.5",
    "reward_model.optim=sgd",
    "reward_model.learning_rate=0.1",
    "ppo.adam_epsilon=1e-3",
)


class Kept(NullMonitor):
    """Keeps the metrics of every step."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        self.metrics.append(dict(metrics))


def bandit(monitor: Monitor, roles: Bandit, **changes: Any) -> dict[str, list[float]]:
    settings = bandit_settings(
        episodes=64 * 5, rollout_batch_size=64, minibatch_size=32, forward_batch_size=8, **changes
    )
    PPOTrainer(roles, [[0]] * 7, settings, monitor).train()
    return {"logits": roles.logits.tolist(), "value": roles.value.tolist()}


def run(recipe: Recipe, inputs: Mapping[str, Path], output: Path) -> tuple[Metrics, Steps]:
    """Run the stages, each into a folder of its own; return their metrics and their steps'."""
    metrics: Metrics = {}
    steps: Steps = {}
    for name, stage in STAGES.items():
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        monitor = Kept()
        metrics[name] = stage(recipe, inputs, folder, monitor).metrics
        steps[name] = monitor.metrics
    return metrics, steps


def run_sharded(recipe: Recipe, inputs: Mapping[str, Path], output: Path) -> dict[str, Any]:
    """Run every stage again with the base sharded; then SFT once more, interrupted and resumed."""
    os.environ |= FSDP2
    Processes()
    wrapped: list[torch.nn.Module] = []

    def counted(model: torch.nn.Module, options: Mapping[str, Any]) -> torch.nn.Module:
        wrapped.append(model)
        return average_gradients(model, options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hf_training, "average_gradients", counted)
        metrics, steps = run(recipe, inputs, output / "fsdp2")
        saving = recipe.sft.model_copy(update={"save_steps": 1})
        folder = output / "fsdp2" / "resumed"
        folder.mkdir(parents=True, exist_ok=True)
        saved = recipe.model_copy(update={"sft": saving})
        try:
            sft.run(saved, inputs, folder, Dying(after=3))
        except Cut:
            sft.run(saved, inputs, folder, NullMonitor())
    return {"metrics": metrics, "steps": steps, "wrapped": len(wrapped)}


def train(output: Path, sft_folder: Path, rm_folder: Path) -> None:
    """Run the bandit and every training stage; process 0 writes what came of it.

    Args:
        output: Folder of the stages' folders and of ``metrics.json``.
        sft_folder: Checkpoint that the reward model and PPO start from.
        rm_folder: Reward model of PPO.
    """
    processes = Processes()
    share = WHOLE_BATCH // processes.count
    recipe = tiny_recipe(
        *ROWS,
        *SMOOTH,
        f"sft.per_device_train_batch_size={share // 2}",
        "sft.gradient_accumulation_steps=2",
        f"reward_model.per_device_train_batch_size={share}",
        "sft.logging_steps=1",
        "reward_model.logging_steps=1",
        "reward_model.gradient_checkpointing=true",
        "ppo.eval_rollouts=1",
        "ppo.eval_prompts=3",
    )
    monitor, of_head = Kept(), Kept()
    weights = bandit(monitor, Bandit())
    with_head = bandit(of_head, HeadBandit(), critic="head", critic_warmup_rollouts=1)
    inputs = {"sft": sft_folder, "rm": rm_folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gold, "GOLD_PAIRS_DRAWN", GOLD_PAIRS)
        metrics, steps = run(recipe, inputs, output)
        found: dict[str, Any] = {"bandit": weights, "head_bandit": with_head, "metrics": metrics}
        found["steps"] = {"bandit": monitor.metrics, "head_bandit": of_head.metrics} | steps
        if processes.count > 1:
            found["fsdp2"] = run_sharded(recipe, inputs, output)
    if processes.is_main:
        (output / "metrics.json").write_text(json.dumps(found))
    if processes.count > 1:
        torch.distributed.destroy_process_group()
