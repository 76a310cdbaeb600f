"""Disk space of checkpoints and results in training by transformers' trainers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer

from rlhfctl.run.disk import folder_bytes, require_space, space_for
from rlhfctl.stages.shared.hf_checkpoints import checkpoint_at

if TYPE_CHECKING:
    import torch

_MOMENTS = 8
"""Bytes of an optimizer's two moments per trained weight."""
_OTHER_FILES = 2**19
"""Bytes of tokenizer, configuration and random states, at least."""


class SpaceForCheckpoints(Trainer):  # type: ignore[misc]
    """Saves a checkpoint only where it fits, and leaves no part of one.

    Attributes:
        stage_name: sft or rm, for messages.
    """

    stage_name = ""

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        folder = Path(self.args.output_dir)
        partial = checkpoint_at(folder, self.state.global_step)
        purpose = f"a checkpoint of {self.stage_name}"
        with space_for(folder, checkpoint_bytes(self.model), purpose, partial):
            super()._save_checkpoint(*arguments, **named)


def require_space_for_training(trainer: Any, stage: str) -> None:
    """Refuse training whose checkpoints will not fit on the disk.

    Raises:
        DiskFullError: The checkpoints to keep and a margin do not fit; those of an interrupted attempt,
            which new ones will replace, count as free.
    """
    folder = Path(trainer.args.output_dir)
    size = checkpoint_bytes(trainer.model)
    count = trainer.args.save_total_limit
    needed = max(size, count * size - folder_bytes(folder))
    require_space(folder, needed, f"room for {count} checkpoints of {stage}")


def checkpoint_bytes(model: torch.nn.Module) -> int:
    """Return the size of a checkpoint: weights, two moments per weight, and small files."""
    return weight_bytes(model) + _MOMENTS * sum(p.numel() for p in _trained(model))


def weight_bytes(model: torch.nn.Module) -> int:
    """Return the size of a result: trained weights and small files."""
    return _OTHER_FILES + sum(p.numel() * p.element_size() for p in _trained(model))


def _trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]
