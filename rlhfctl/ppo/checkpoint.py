"""Checkpoints of PPO between and within rollouts; a resumed run is bit-identical to an uninterrupted one.

They hold weights and their running mean, both optimisers, the scale of the losses, the KL
coefficient, the running moments, the positions among prompts and demonstrations, and the rollout in
hand, if there is one (known bugs 8 and 22 in docs/explanation/ppo.md: no resume,
critic or optimiser lost). Random states are not saved: sampling and shuffling depend on seed and
rollout number only, and so do the learning rates. Tensors are safetensors, numbers JSON, no pickle.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rlhfctl.errors import CheckpointError
from rlhfctl.json_text import parse_json
from rlhfctl.maths.statistics import RunningMoments
from rlhfctl.ppo.alarm_acts import AlarmState
from rlhfctl.ppo.unfinished_rollout import UnfinishedRollout
from rlhfctl.run.disk import folder_bytes, require_space, space_for
from rlhfctl.run.files import write_json
from rlhfctl.run.sealed import damage, newest_undamaged, seal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from rlhfctl.ppo.ppo_step import PPOStep
    from rlhfctl.run.monitor import Monitor

TENSORS = "state.safetensors"
NUMBERS = "state.json"
_SCALER = "scaler."
_COPIES = 4
"""Tensors of a weight's size per weight: itself, two moments, and a running mean."""


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
        alarms: Memory of the acts on alarms.
    """

    rollout: int
    beta: float
    moments: RunningMoments
    place: int = 0
    ptx_place: int = 0
    skipped: int = 0
    early_stops: int = 0
    alarms: AlarmState = field(default_factory=AlarmState)


def save(
    folder: Path,
    step: PPOStep,
    average: Sequence[Tensor],
    progress: Progress,
    unfinished: UnfinishedRollout | None = None,
) -> Path:
    """Write `folder/rollout-N` atomically, with the digest of each file, and keep the newest ones.

    The one that a rollback would restore is kept, too.

    Args:
        folder: Parent of all checkpoints of the stage.
        step: Weights and optimisers.
        average: Running mean of the policy's weights; empty without one.
        progress: Training state to save.
        unfinished: Rollout that was collected after N others, of a checkpoint within it.

    Raises:
        DiskFullError: It does not fit on the disk; earlier checkpoints are kept.
    """
    final = folder / _name(progress, unfinished)
    staging = folder / f".{final.name}"
    shutil.rmtree(staging, ignore_errors=True)
    tensors = _tensors(step, average)
    with space_for(folder, _bytes(tensors), "a checkpoint of ppo", partial=staging):
        staging.mkdir(parents=True)
        save_file(tensors, staging / TENSORS)
        if unfinished is not None:
            unfinished.save(staging)
        write_json(staging / NUMBERS, {"progress": asdict(progress)})
        seal(staging, step.processes.count)
    if final.exists():
        shutil.rmtree(final)
    staging.rename(final)
    for old in _all(folder)[: -step.settings.keep_last]:
        if old.name != _between(progress.alarms.clean):
            shutil.rmtree(old)
    return final


def require_room(folder: Path, step: PPOStep) -> None:
    """Refuse training whose checkpoints will not fit on the disk.

    Args:
        folder: Parent of the checkpoints; those that it holds count as free, since new ones will
            replace them.
        step: Weights to be saved, with two moments each and at most one running mean.

    Raises:
        DiskFullError: The checkpoints to keep and a margin do not fit.
    """
    weights = sum(weight.nbytes for role in step.weights.values() for weight in role)
    size = _COPIES * weights
    count = step.settings.keep_last + (step.settings.on_alarm in {"rollback", "stop"})
    needed = max(size, count * size - folder_bytes(folder))
    require_space(folder, needed, f"room for {count} checkpoints of ppo")


def _name(progress: Progress, unfinished: UnfinishedRollout | None) -> str:
    """Return a name that sorts by age: `rollout-3`, `rollout-3-000008`, `rollout-3-evaluation`."""
    if unfinished is None:
        return _between(progress.rollout)
    if unfinished.metrics is not None:
        return f"rollout-{progress.rollout - 1:08d}-evaluation"
    return f"rollout-{progress.rollout:08d}-{unfinished.minibatches:06d}"


def _between(rollout: int | None) -> str:
    """Return the name of the checkpoint between two rollouts, after `rollout` of them."""
    return "" if rollout is None else f"rollout-{rollout:08d}"


def rollout_of(checkpoint: Path) -> int:
    """Return the number of rollouts whose evaluation a run that resumes from a checkpoint has done."""
    return int(checkpoint.name.split("-")[1])


def load_latest(
    folder: Path, step: PPOStep, average: Sequence[Tensor], monitor: Monitor
) -> tuple[Progress, UnfinishedRollout | None] | None:
    """Restore the newest valid checkpoint; return None if there are no checkpoints.

    Args:
        folder: Parent of all checkpoints of the stage.
        step: Built from the same roles and settings as the saved one.
        average: As in `save`.
        monitor: Told which newer checkpoints are damaged, and the rollouts that are lost.

    Raises:
        CheckpointError: No checkpoint is valid, or the newest valid one is of other settings.
    """
    checkpoint = newest_undamaged(_all(folder), folder, "rollouts", monitor)
    if checkpoint is None:
        return None
    progress = _load(checkpoint, step, average)
    return progress, UnfinishedRollout.load(checkpoint, step.roles.device)


def load(folder: Path, rollout: int, step: PPOStep, average: Sequence[Tensor]) -> Progress:
    """Restore the checkpoint that was saved after `rollout` rollouts.

    Args:
        folder: Parent of all checkpoints of the stage.
        rollout: Rollouts before it.
        step: As in `load_latest`.
        average: As in `save`.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    checkpoint = folder / _between(rollout)
    problem = damage(checkpoint)
    if problem is not None:
        raise CheckpointError(
            f"the checkpoint to go back to is not usable: {problem}",
            str(checkpoint),
            "Resume with --set ppo.on_alarm=raise_beta, or start the stage anew with --force.",
        )
    return _load(checkpoint, step, average)


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("rollout-*")) if folder.is_dir() else []


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _tensors(step: PPOStep, average: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return every tensor of the state by name; optimiser scalars become tensors."""
    tensors: dict[str, Tensor] = {}
    states = [optimizer.state for optimizer in step.optimizers.values()]
    for role, weights in step.weights.items():
        for index, weight in enumerate(weights):
            tensors[f"{role}.{index}.weight"] = weight.detach()
            for state in states:
                for name, value in state.get(weight, {}).items():
                    tensors[f"{role}.{index}.state.{name}"] = torch.as_tensor(value)
    for index, mean in enumerate(average):
        tensors[f"average.{index}"] = mean
    for name, value in step.scaler.state_dict().items():
        tensors[f"{_SCALER}{name}"] = torch.as_tensor(value)
    return {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}


def _restore(step: PPOStep, average: Sequence[Tensor], tensors: dict[str, Tensor]) -> None:
    """Restore the tensors of `_tensors`; optimisers convert device and dtype themselves."""
    states: dict[torch.nn.Parameter, dict[str, Tensor]] = {}
    for role, weights in step.weights.items():
        for index, weight in enumerate(weights):
            with torch.no_grad():
                weight.copy_(tensors[f"{role}.{index}.weight"])
            prefix = f"{role}.{index}.state."
            states[weight] = {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
    for optimizer in step.optimizers.values():
        # An optimiser numbers its weights over all its groups.
        held = [weight for group in optimizer.param_groups for weight in group["params"]]
        nonempty = {index: states[weight] for index, weight in enumerate(held) if states[weight]}
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


def _load(checkpoint: Path, step: PPOStep, average: Sequence[Tensor]) -> Progress:
    """Restore an undamaged checkpoint and return its progress.

    Raises:
        CheckpointError: It was saved with other settings.
    """
    try:
        numbers = parse_json((checkpoint / NUMBERS).read_text(encoding="utf-8"))
        values = numbers["progress"]
        moments = RunningMoments(**values["moments"])
        # Checkpoints of versions that did not act on alarms have no such entry.
        alarms = AlarmState.of(values["alarms"]) if "alarms" in values else AlarmState()
        progress = Progress(**(values | {"moments": moments, "alarms": alarms}))
        _restore(step, average, load_file(checkpoint / TENSORS))
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint was saved with other settings or by another version "
            f"({type(error).__name__}: {str(error).splitlines()[0]})",
            str(checkpoint),
            "Continue with the settings that it was saved with, or start the stage anew with "
            "--force.",
        ) from error
    return progress
