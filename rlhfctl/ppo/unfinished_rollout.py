"""An unfinished rollout: sampled, but not yet trained on or evaluated to the end.

A checkpoint within a rollout holds it, so that a resumed run doesn't sample and score it again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from rlhfctl.json_text import parse_json
from rlhfctl.maths.sequences import Sequences
from rlhfctl.ppo.rollout import Rollout
from rlhfctl.ppo.rollout_metrics import RolloutTimer, UpdateMetrics
from rlhfctl.run.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TENSORS = "unfinished_rollout.safetensors"
NUMBERS = "unfinished_rollout.json"
_SEQUENCES = "sequences."


@dataclass
class UnfinishedRollout:
    """A rollout and what has been done with it.

    Attributes:
        rollout: The rollout.
        timer: Its clock, which leaves out the time between an interruption and the resumption.
        update: Losses of the minibatches so far.
        minibatches: Minibatches done, over all epochs, applied or skipped.
        metrics: The rollout's metrics, once the update is done and only the held-out evaluation
            and the log remain; else empty.
    """

    rollout: Rollout
    timer: RolloutTimer
    update: UpdateMetrics
    minibatches: int = 0
    metrics: Mapping[str, float] | None = None

    def save(self, checkpoint: Path) -> None:
        """Write it into a checkpoint's folder."""
        rollout = self.rollout
        tensors = {f"{_SEQUENCES}{name}": value for name, value in vars(rollout.sequences).items()}
        tensors |= {
            name: value for name, value in vars(rollout).items() if isinstance(value, torch.Tensor)
        }
        save_file(
            {name: value.contiguous() for name, value in tensors.items()}, checkpoint / TENSORS
        )
        numbers = {
            "rows": list(rollout.rows),
            "beta": rollout.beta,
            "source_metrics": rollout.source_metrics,
            "seconds": self.timer.seconds(),
            "sums": dict(self.update.sums),
            "counts": dict(self.update.counts),
            "minibatches": self.minibatches,
            "metrics": None if self.metrics is None else dict(self.metrics),
        }
        # A metric may be NaN, which `json` reads again.
        write_atomic(checkpoint / NUMBERS, json.dumps(numbers))

    @classmethod
    def load(cls, checkpoint: Path, device: torch.device) -> UnfinishedRollout | None:
        """Return the unfinished rollout of a checkpoint; None if it was saved between two rollouts."""
        if not (checkpoint / NUMBERS).is_file():
            return None
        numbers = parse_json((checkpoint / NUMBERS).read_text(encoding="utf-8"))
        tensors = load_file(checkpoint / TENSORS, device=str(device))
        sequences = {
            name.removeprefix(_SEQUENCES): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(_SEQUENCES)
        }
        # Without a critic there are no values, and transformers gives no log-probabilities of its own.
        named: dict[str, Any] = {"values": None, "engine_log_probs": None} | tensors
        named |= {name: numbers[name] for name in ("rows", "beta", "source_metrics")}
        rollout = Rollout(sequences=Sequences(**sequences), **named)
        update = UpdateMetrics()
        update.sums.update(numbers["sums"])
        update.counts.update(numbers["counts"])
        timer = RolloutTimer(*numbers["seconds"])
        return cls(rollout, timer, update, numbers["minibatches"], numbers["metrics"])
