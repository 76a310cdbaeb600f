"""Score head, value head and score normalization."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from rlhfctl.errors import CheckpointError
from rlhfctl.json_text import parse_json
from rlhfctl.models.foreign_files import NORMALIZATION_FILE

if TYPE_CHECKING:
    from pathlib import Path


VALUE_HEAD_FILE = "value_head.safetensors"
"""A value head on the policy, by itself."""


def initialise_score_head(head: torch.nn.Linear, seed: int) -> None:
    """Draw weights with standard deviation 1 / sqrt(d + 1), bias 0 (Ziegler et al. 2019's code).

    Args:
        head: Linear layer from [H] to [1].
        seed: Seed of a separate generator, so that the global random state is unchanged.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(head.weight.shape, generator=generator)
    with torch.no_grad():
        head.weight.copy_(weights / math.sqrt(head.in_features + 1))
        if head.bias is not None:
            head.bias.zero_()


def linear_float32(head: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
    """Return an fp32 head's output for states of any dtype, computed in fp32 under autocast too.

    Args:
        head: Linear layer from [H] to [1] in fp32.
        states: [..., H].

    Returns:
        [..., 1] in fp32.
    """
    with torch.autocast(states.device.type, enabled=False):
        outputs: torch.Tensor = head(states.float())
    return outputs


@dataclass(frozen=True)
class ScoreNormalization:
    """Mean and deviation of raw scores over responses of the SFT policy.

    Attributes:
        mean: Mean of the raw score.
        deviation: Biased standard deviation of the raw score, above 0.
        samples: Number of responses.
    """

    mean: float
    deviation: float
    samples: int

    def apply(self, scores: torch.Tensor) -> torch.Tensor:
        """Return (scores - mean) / deviation, same shape as `scores`."""
        return (scores - self.mean) / self.deviation

    def save(self, folder: Path) -> None:
        """Write to the reward model's folder."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        (folder / NORMALIZATION_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ScoreNormalization:
        """Read the file written by `save`.

        Raises:
            CheckpointError: The file is missing or damaged.
        """
        path = folder / NORMALIZATION_FILE
        try:
            normalization = cls(**parse_json(path.read_text(encoding="utf-8")))
            usable = math.isfinite(normalization.mean) and 0 < normalization.deviation < math.inf
        except (OSError, ValueError, TypeError) as error:
            raise _unreadable(path) from error
        if not usable:
            raise _unreadable(path)
        return normalization


def _unreadable(path: Path) -> CheckpointError:
    return CheckpointError(
        "the reward model has no readable score normalisation",
        str(path),
        "Train it again: rlhfctl train-rm --force",
    )


def zero_value_head(width: int, device: torch.device) -> torch.nn.Linear:
    """Return a value head whose output is 0, for a critic not initialised from a reward model.

    Args:
        width: H, the hidden size.
        device: Device of the head.
    """
    value = torch.nn.Linear(width, 1, bias=True, dtype=torch.float32)
    with torch.no_grad():
        value.weight.zero_()
        value.bias.zero_()
    return value.to(device)


def save_value_head(head: torch.nn.Linear, folder: Path) -> None:
    """Write a value head by itself, with the names of TRL's `AutoModelForCausalLMWithValueHead`."""
    tensors = {
        f"v_head.summary.{name}": weight.detach().cpu().contiguous()
        for name, weight in head.named_parameters()
    }
    save_file(tensors, folder / VALUE_HEAD_FILE)


def value_head_from_score(
    head: torch.nn.Linear, normalization: ScoreNormalization
) -> torch.nn.Linear:
    """Return a value head whose output is the normalised score of the score head.

    Args:
        head: Score head from [H] to [1].
        normalization: Normalization of its scores, so that values start on the scale of rewards.
    """
    value = torch.nn.Linear(head.in_features, 1, bias=True, dtype=torch.float32)
    bias = 0.0 if head.bias is None else float(head.bias)
    with torch.no_grad():
        value.weight.copy_(head.weight / normalization.deviation)
        value.bias.fill_((bias - normalization.mean) / normalization.deviation)
    return value.to(head.weight.device)
