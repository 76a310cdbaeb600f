"""Checkpoints of PPO between two rollouts; a resumed run is bit-identical to an uninterrupted one.

They hold weights and their running mean, both optimisers, the scale of the losses, the KL
coefficient, the running moments and the positions among prompts and demonstrations (known bugs 8 and 22 in docs/explanation/ppo.md: no resume,
critic or optimiser lost). Random states are not saved: sampling and shuffling depend on seed and
rollout number only, and so do the learning rates. Tensors are safetensors, numbers JSON, no pickle.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rlhfctl.errors import CheckpointError
from rlhfctl.maths.statistics import RunningMoments
from rlhfctl.run.files import digest, sync_folder, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from rlhfctl.ppo.ppo_step import PPOStep

TENSORS = "state.safetensors"
NUMBERS = "state.json"
CHECKPOINTS_TO_KEEP = 2
_SCALER = "scaler."


@dataclass
class Progress:
    """Training state besides weights and optimisers.

    Attributes:
        rollout: Completed rollouts.
        beta: KL coefficient of the next rollout.
        moments: Running moments of all scores so far.
        place: Prompts consumed.
        ptx_place: Demonstrations consumed.
        skipped: Minibatches skipped.
        early_stops: Rollouts whose epochs were cut short by `kl_early_stop`.
    """

    rollout: int
    beta: float
    moments: RunningMoments
    place: int = 0
    ptx_place: int = 0
    skipped: int = 0
    early_stops: int = 0


def save(folder: Path, step: PPOStep, average: Sequence[Tensor], progress: Progress) -> Path:
    """Write `folder/rollout-N` atomically and keep the newest two.

    Args:
        folder: Parent of all checkpoints of the stage.
        step: Weights and optimisers.
        average: Running mean of the policy's weights; empty without one.
        progress: Training state to save.
    """
    final = folder / f"rollout-{progress.rollout:08d}"
    staging = folder / f".{final.name}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    save_file(_tensors(step, average), staging / TENSORS)
    write_json(
        staging / NUMBERS, {"tensors": digest(staging / TENSORS), "progress": asdict(progress)}
    )
    sync_folder(staging)
    if final.exists():
        shutil.rmtree(final)
    staging.rename(final)
    for old in _all(folder)[:-CHECKPOINTS_TO_KEEP]:
        shutil.rmtree(old)
    return final


def load_latest(folder: Path, step: PPOStep, average: Sequence[Tensor]) -> Progress | None:
    """Restore the newest valid checkpoint; return None if there are no checkpoints.

    Args:
        folder: Parent of all checkpoints of the stage.
        step: Built from the same roles and settings as the saved one.
        average: As in `save`.

    Raises:
        CheckpointError: No checkpoint is valid.
    """
    checkpoints = _all(folder)
    for checkpoint in reversed(checkpoints):
        progress = _load(checkpoint, step, average)
        if progress is not None:
            return progress
    if checkpoints:
        raise CheckpointError(
            f"none of {len(checkpoints)} checkpoints is complete and undamaged",
            str(folder),
            "Restart the stage with --force.",
        )
    return None


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("rollout-*")) if folder.is_dir() else []


def _tensors(step: PPOStep, average: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return every tensor of the state by name; optimiser scalars become tensors."""
    tensors: dict[str, Tensor] = {}
    for role, weights in step.weights.items():
        state = step.optimizers[role].state
        for index, weight in enumerate(weights):
            tensors[f"{role}.{index}.weight"] = weight.detach()
            for name, value in state.get(weight, {}).items():
                tensors[f"{role}.{index}.state.{name}"] = torch.as_tensor(value)
    for index, mean in enumerate(average):
        tensors[f"average.{index}"] = mean
    for name, value in step.scaler.state_dict().items():
        tensors[f"{_SCALER}{name}"] = torch.as_tensor(value)
    return {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}


def _restore(step: PPOStep, average: Sequence[Tensor], tensors: dict[str, Tensor]) -> None:
    """Restore the tensors of `_tensors`; optimisers convert device and dtype themselves."""
    for role, weights in step.weights.items():
        states = {}
        for index, weight in enumerate(weights):
            with torch.no_grad():
                weight.copy_(tensors[f"{role}.{index}.weight"])
            prefix = f"{role}.{index}.state."
            states[index] = {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
        nonempty = {index: state for index, state in states.items() if state}
        optimizer = step.optimizers[role]
        optimizer.load_state_dict(optimizer.state_dict() | {"state": nonempty})
    for index, mean in enumerate(average):
        mean.copy_(tensors[f"average.{index}"])
    scaler = {
        name.removeprefix(_SCALER): tensor.item()
        for name, tensor in tensors.items()
        if name.startswith(_SCALER)
    }
    if scaler:  # none where the run began in another precision
        step.scaler.load_state_dict(scaler)


def _load(checkpoint: Path, step: PPOStep, average: Sequence[Tensor]) -> Progress | None:
    """Restore a checkpoint and return its progress; None if it is damaged."""
    try:
        numbers = json.loads((checkpoint / NUMBERS).read_text(encoding="utf-8"))
        if digest(checkpoint / TENSORS) != numbers["tensors"]:
            return None
        tensors = load_file(checkpoint / TENSORS)
        values = numbers["progress"]
        progress = Progress(**(values | {"moments": RunningMoments(**values["moments"])}))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    _restore(step, average, tensors)
    return progress
