"""Trains in one process or several: ``torchrun two_processes.py OUTPUT SFT RM``, or `train`."""

import json
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from rlhfctl.ppo.processes import Processes
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.ppo import stage as ppo
from rlhfctl.stages.reward_model import stage as reward_model
from rlhfctl.stages.sft import stage as sft
from rlhfctl.stages.shared import hf_training
from tests.conftest import tiny_recipe
from tests.ppo.toy import Bandit, Cut, Dying, bandit_settings

# numbers of rows whose training part the batches divide
ROWS = ("data.demonstrations.max_rows=72", "data.comparisons.max_rows=77")
WHOLE_BATCH = 16
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
STAGES = {"sft": sft, "rm": reward_model, "ppo": ppo}
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

    def __init__(self):
        self.metrics = []

    def step(self, done, metrics):
        self.metrics.append(dict(metrics))


def bandit(monitor):
    settings = bandit_settings(
        episodes=64 * 5, rollout_batch_size=64, minibatch_size=32, forward_batch_size=8
    )
    roles = Bandit()
    PPOTrainer(roles, [[0]] * 7, settings, monitor).train()
    return {"logits": roles.logits.tolist(), "value": roles.value.tolist()}


def run(stages, recipe, inputs, output, found):
    """Run stages, each into a folder of its own, and keep what they and their steps measured."""
    for name, stage in stages.items():
        folder = Path(output) / name
        folder.mkdir(parents=True, exist_ok=True)
        monitor = Kept()
        found["metrics"][name] = stage.run(recipe, inputs, folder, monitor).metrics
        found["steps"][name] = monitor.metrics


def run_sharded(recipe, inputs, output):
    """Run every stage again with the base sharded; then SFT once more, interrupted and resumed."""
    os.environ |= FSDP2
    Processes()
    wrapped = []
    wrap = hf_training.average_gradients
    hf_training.average_gradients = lambda *arguments: wrapped.append(1) or wrap(*arguments)
    found = {"metrics": {}, "steps": {}}
    run(STAGES, recipe, inputs, output / "fsdp2", found)
    saving = recipe.sft.model_copy(update={"save_steps": 1})
    folder = output / "fsdp2" / "resumed"
    folder.mkdir(parents=True, exist_ok=True)
    saved = recipe.model_copy(update={"sft": saving})
    try:
        sft.run(saved, inputs, folder, Dying(after=3))
    except Cut:
        sft.run(saved, inputs, folder, NullMonitor())
    hf_training.average_gradients = wrap
    return found | {"wrapped": len(wrapped)}


def train(output, sft_folder, rm_folder):
    """Run the bandit and every training stage; process 0 writes what came of it."""
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
    monitor = Kept()
    weights = bandit(monitor)
    found = {"bandit": weights, "metrics": {}, "steps": {"bandit": monitor.metrics}}
    inputs = {"sft": Path(sft_folder), "rm": Path(rm_folder)}
    output = Path(output)
    run(STAGES, recipe, inputs, output, found)
    if processes.count > 1:
        found["fsdp2"] = run_sharded(recipe, inputs, output)
    if processes.is_main:
        (output / "metrics.json").write_text(json.dumps(found))
    if processes.count > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    train(*sys.argv[1:])
