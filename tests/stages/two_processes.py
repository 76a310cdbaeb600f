"""Trains in one process or several: ``torchrun two_processes.py OUTPUT SFT RM``, or `train`."""

import json
import os
import sys
from pathlib import Path

import torch

TESTS = Path(__file__).parents[1]
for folder in (TESTS, TESTS / "ppo"):
    sys.path.insert(0, str(folder))

from conftest import tiny_recipe  # noqa: E402
from toy import Bandit, bandit_settings  # noqa: E402

from rlhfctl.ppo.processes import Processes  # noqa: E402
from rlhfctl.ppo.trainer import PPOTrainer  # noqa: E402
from rlhfctl.run.monitor import QuietMonitor  # noqa: E402
from rlhfctl.stages import ppo, reward, sft  # noqa: E402

# numbers of rows whose training part the batches divide
ROWS = ("data.demonstrations.max_rows=72", "data.comparisons.max_rows=77")
WHOLE_BATCH = 16
# Adam divides a gradient by its own size, and so makes whole steps of the rounding where it is 0.
SMOOTH = (
    "sft.optim=sgd",
    "sft.learning_rate=0.5",
    "reward_model.optim=sgd",
    "reward_model.learning_rate=0.1",
    "ppo.adam_epsilon=1e-3",
)


class Kept(QuietMonitor):
    """Keeps the figures of every step."""

    def __init__(self):
        self.figures = []

    def step(self, done, figures):
        self.figures.append(dict(figures))


def bandit(monitor):
    settings = bandit_settings(
        episodes=64 * 5, rollout_batch_size=64, minibatch_size=32, forward_batch_size=8
    )
    actors = Bandit()
    PPOTrainer(actors, [[0]] * 7, settings, monitor).train()
    return {"logits": actors.logits.tolist(), "value": actors.value.tolist()}


def spread(output, inputs, recipe, metrics):
    """Run PPO again with the base spread over the processes."""
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    folder = Path(output) / "spread"
    folder.mkdir(exist_ok=True)
    metrics["spread"] = ppo.run(recipe, inputs, folder, QuietMonitor()).metrics


def train(output, sft_folder, rm_folder):
    """Run the bandit and every training stage; process 0 writes what came of it."""
    processes = Processes()
    share = WHOLE_BATCH // processes.count
    recipe = tiny_recipe(
        *ROWS,
        *SMOOTH,
        f"sft.per_device_train_batch_size={share}",
        f"reward_model.per_device_train_batch_size={share}",
        "sft.logging_steps=1",
        "reward_model.logging_steps=1",
        "ppo.eval_rollouts=1",
        "ppo.eval_prompts=3",
    )
    figures, metrics = {}, {}
    monitor = Kept()
    weights = bandit(monitor)
    figures["bandit"] = monitor.figures
    inputs = {"sft": Path(sft_folder), "rm": Path(rm_folder)}
    for name, stage in {"sft": sft, "rm": reward, "ppo": ppo}.items():
        folder = Path(output) / name
        folder.mkdir(parents=True, exist_ok=True)
        processes.wait()
        monitor = Kept()
        metrics[name] = stage.run(recipe, inputs, folder, monitor).metrics
        figures[name] = monitor.figures
    if processes.count > 1:
        spread(output, inputs, recipe, metrics)
    if processes.is_main:
        text = json.dumps({"bandit": weights, "figures": figures, "metrics": metrics})
        (Path(output) / "figures.json").write_text(text)
    if processes.count > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    train(*sys.argv[1:])
