"""The state of PPO between two rollouts, so that a run goes on as if it had not stopped.

Weights and their running mean, optimiser moments, KL coefficient, running moments and the places
among prompts and demonstrations are kept. Random states are not: sampling and shuffling start from
seed and rollout number alone, and rates follow from the rollout's number.
Tensors lie in safetensors, numbers in JSON; nothing is pickled.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rlhfctl.errors import CheckpointError
from rlhfctl.maths.statistics import RunningMoments
from rlhfctl.ppo.progress import Progress
from rlhfctl.run.files import digest, sync_folder, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from rlhfctl.ppo.ppo_step import PPOStep

TENSORS = "state.safetensors"
NUMBERS = "state.json"
KEPT = 2


def save(folder: Path, update: PPOStep, progress: Progress) -> Path:
    """Write ``folder/rollout-N`` whole or not at all, and keep the newest two.

    Args:
        folder: Of all checkpoints of the stage.
        update: Weights and optimisers.
        progress: Where training stands.
    """
    final = folder / f"rollout-{progress.rollout:08d}"
    staging = folder / f".{final.name}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    save_file(_tensors(update), staging / TENSORS)
    write_json(
        staging / NUMBERS, {"tensors": digest(staging / TENSORS), "progress": asdict(progress)}
    )
    sync_folder(staging)
    if final.exists():
        shutil.rmtree(final)
    staging.rename(final)
    for old in _all(folder)[:-KEPT]:
        shutil.rmtree(old)
    return final


def load_latest(folder: Path, update: PPOStep) -> Progress | None:
    """Put the newest sound checkpoint's state into `update`; None when there is none to go on from.

    Args:
        folder: Of all checkpoints of the stage.
        update: Of the same roles and settings as the one that was saved.

    Raises:
        CheckpointError: There are checkpoints, and none of them is sound.
    """
    found = _all(folder)
    for checkpoint in reversed(found):
        progress = _load(checkpoint, update)
        if progress is not None:
            return progress
    if found:
        raise CheckpointError(
            f"none of {len(found)} checkpoints is complete and undamaged",
            str(folder),
            "Start the stage anew with --force.",
        )
    return None


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("rollout-*")) if folder.is_dir() else []


def _tensors(update: PPOStep) -> dict[str, Tensor]:
    """Name every tensor of the state; numbers among an optimiser's own become tensors."""
    tensors: dict[str, Tensor] = {}
    for role, weights in update.weights.items():
        state = update.optimizers[role].state
        for at, weight in enumerate(weights):
            tensors[f"{role}.{at}.weight"] = weight.detach()
            for name, value in state.get(weight, {}).items():
                tensors[f"{role}.{at}.state.{name}"] = torch.as_tensor(value)
    for at, mean in enumerate(update.average or ()):
        tensors[f"average.{at}"] = mean
    return {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}


def _put(update: PPOStep, tensors: dict[str, Tensor]) -> None:
    """Put what `_tensors` named in place; each optimiser sees to device and type of its own."""
    for role, weights in update.weights.items():
        states = {}
        for at, weight in enumerate(weights):
            with torch.no_grad():
                weight.copy_(tensors[f"{role}.{at}.weight"])
            prefix = f"{role}.{at}.state."
            states[at] = {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
        kept = {at: state for at, state in states.items() if state}
        optimizer = update.optimizers[role]
        optimizer.load_state_dict(optimizer.state_dict() | {"state": kept})
    for at, mean in enumerate(update.average or ()):
        mean.copy_(tensors[f"average.{at}"])


def _load(checkpoint: Path, update: PPOStep) -> Progress | None:
    """Return the progress of a checkpoint after putting its tensors in place; None if unsound."""
    try:
        numbers = json.loads((checkpoint / NUMBERS).read_text(encoding="utf-8"))
        if digest(checkpoint / TENSORS) != numbers["tensors"]:
            return None
        tensors = load_file(checkpoint / TENSORS)
        values = numbers["progress"]
        progress = Progress(**(values | {"moments": RunningMoments(**values["moments"])}))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    _put(update, tensors)
    return progress
