"""Metrics gathered over one rollout: wall-clock times and the means of the losses."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from rlhfctl.errors import DivergedError
from rlhfctl.run.memory import peak_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlhfctl.ppo.rollout import Rollout


class RolloutTimer:
    """Wall-clock metrics of one rollout."""

    def __init__(self, collecting: float = 0.0, updating: float = 0.0) -> None:
        """Start the clock, or go on after seconds of collecting and of updating."""
        self.collected = time.perf_counter() - updating
        self.started = self.collected - collecting

    def mark_collected(self) -> None:
        """Record the end of sampling and scoring, and the start of the update."""
        self.collected = time.perf_counter()

    def seconds(self) -> tuple[float, float]:
        """Return the seconds of collecting and of updating so far."""
        return self.collected - self.started, time.perf_counter() - self.collected

    def metrics(self, rollout: Rollout) -> dict[str, float]:
        """Return durations in seconds, throughput per second and peak memory in bytes."""
        now = time.perf_counter()
        tokens = float(rollout.sequences.response_lengths.sum())
        return {
            "rollout_seconds": self.collected - self.started,
            "update_seconds": now - self.collected,
            "episodes_per_second": len(rollout.rows) / (now - self.started),
            "tokens_per_second": tokens / (now - self.started),
            "memory_bytes": peak_memory_bytes(),
        }


class UpdateMetrics:
    """Means of the losses over a rollout's applied minibatches."""

    def __init__(self) -> None:
        """Start without minibatches."""
        self.sums: defaultdict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()

    def add(self, metrics: Mapping[str, float]) -> None:
        """Count an applied minibatch."""
        for name, value in metrics.items():
            self.sums[name] += value
        self.counts["applied"] += 1

    def skip(self) -> None:
        """Count a skipped minibatch."""
        self.counts["skipped"] += 1

    def means(self) -> dict[str, float]:
        """Return the means and the counts.

        Raises:
            DivergedError: No minibatch was applied.
        """
        applied = self.counts["applied"]
        if not applied:
            raise DivergedError(
                "no minibatch of a rollout could be applied: ratios or losses are out of bounds",
                hint="Lower ppo.learning_rate, or raise ppo.minibatch_size.",
            )
        means = {name: total / applied for name, total in self.sums.items()}
        return means | {
            "updates": float(applied),
            "skipped_minibatches": float(self.counts["skipped"]),
        }
