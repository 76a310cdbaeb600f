"""Bookkeeping around the PPO loop: timing, weight averaging, samples, KL limits, checkpoints."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from rlhfctl.errors import CheckpointError, DivergedError
from rlhfctl.ppo import checkpoint
from rlhfctl.ppo.soundness import require_sound
from rlhfctl.run.memory import peak_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from rlhfctl.ppo.checkpoint import Progress
    from rlhfctl.ppo.ppo_step import PPOStep
    from rlhfctl.ppo.processes import Processes
    from rlhfctl.ppo.rollout import Rollout
    from rlhfctl.ppo.settings import PPOSettings
    from rlhfctl.run.monitor import Monitor


@dataclass(frozen=True)
class HeldOutEvaluation:
    """Result of one held-out evaluation.

    Attributes:
        metrics: Logged next to the rollout's metrics.
        stop: True to end training.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    stop: bool = False


class HeldOutEvaluator(Protocol):
    """Evaluates the policy on held-out prompts; called on all processes."""

    def evaluate(self, rollout: int, episodes: int) -> HeldOutEvaluation:
        """Evaluate the policy after `rollout` rollouts and `episodes` episodes."""

    def resume_from(self, rollout: int) -> None:
        """Drop all evaluations after rollout `rollout`, from which training resumes."""


class RolloutTimer:
    """Wall-clock metrics of one rollout."""

    def __init__(self) -> None:
        """Start the clock."""
        self.started = self.collected = time.perf_counter()

    def mark_collected(self) -> None:
        """Record the end of sampling and scoring, and the start of the update."""
        self.collected = time.perf_counter()

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


class PolicyAverage:
    """Exponential moving average of the policy's weights; a no-op without `ema_decay`.

    Attributes:
        means: One tensor per trainable parameter of the policy; empty without an average.
    """

    def __init__(self, weights: Sequence[torch.nn.Parameter], decay: float | None) -> None:
        """Start the average at the present weights."""
        self.weights = weights
        self.decay = decay
        self.means: list[Tensor] = []
        if decay is not None:
            self.means = [weight.detach().clone() for weight in weights]

    def update(self) -> None:
        """Add the present weights to the average."""
        if self.decay is not None:
            for mean, weight in zip(self.means, self.weights, strict=True):
                mean.lerp_(weight.detach(), 1.0 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the policy by its average within the context."""
        raw = [weight.detach().clone() for weight in self.weights] if self.means else []
        self.adopt()
        try:
            yield
        finally:
            self._copy(raw)

    def adopt(self) -> None:
        """Replace the policy by its average."""
        self._copy(self.means)

    def _copy(self, tensors: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for tensor, weight in zip(tensors, self.weights if tensors else (), strict=True):
                weight.copy_(tensor)


class TrainingHooks:
    """Everything that happens between rollouts and does not change what is learned."""

    def __init__(
        self,
        settings: PPOSettings,
        step: PPOStep,
        monitor: Monitor,
        processes: Processes,
        keep_samples: Callable[[int, Rollout], None] | None,
        checkpoints: Path | None,
        evaluator: HeldOutEvaluator | None,
    ) -> None:
        """Store the receivers; `PPOTrainer` documents them."""
        self.settings = settings
        self.step = step
        self.monitor = monitor
        self.processes = processes
        self.keep_samples = keep_samples
        self.checkpoints = checkpoints
        self.evaluator = evaluator if settings.eval_rollouts is not None else None
        self.average = PolicyAverage(step.weights["policy"], settings.ema_decay)

    def start(self, progress: Progress) -> Progress:
        """Resume from the newest checkpoint, if any; else evaluate the initial policy.

        Raises:
            CheckpointError: No checkpoint is valid, or processes resume from different ones.
            DiskFullError: The disk has no room for the checkpoints.
        """
        restored = None
        if self.checkpoints is not None:
            if self.settings.save_rollouts is not None:
                checkpoint.require_room(self.checkpoints, self.step)
            restored = checkpoint.load_latest(
                self.checkpoints, self.step, self.average.means, self.monitor
            )
        if restored is not None:
            progress = restored
            self.monitor.note(f"Resuming PPO after rollout {progress.rollout}")
        if self.evaluator is not None:
            self.evaluator.resume_from(-1 if restored is None else progress.rollout)
        rollouts = self.processes.gather_items([progress.rollout])
        if len(set(rollouts)) > 1:
            raise CheckpointError(
                f"processes would resume from different rollouts: {rollouts}",
                str(self.checkpoints),
                "Keep the run folder on storage that all nodes share.",
            )
        total = self.settings.rollouts * self.settings.rollout_batch_size
        self.monitor.start("ppo", total, "episodes")
        if progress.rollout == 0 and self.evaluator is not None:
            self.monitor.step(0, self._evaluate(progress).metrics)
        return progress

    def after_rollout(
        self, rollout: Rollout, metrics: Mapping[str, float], progress: Progress
    ) -> bool:
        """Keep samples, evaluate, log, check the KL limits, save; return True to end training.

        Raises:
            DivergedError: KL to the reference exceeds `kl_stop`, or the state to be kept is not
                sound.
        """
        settings = self.settings
        self._keep_samples(rollout, progress)
        last = progress.rollout == settings.rollouts
        if last:
            require_sound(self.step, rollout)
        every = settings.eval_rollouts
        evaluation = HeldOutEvaluation()
        if every is not None and (last or progress.rollout % every == 0):
            evaluation = self._evaluate(progress)
        self.monitor.step(self._episodes(progress), {**metrics, **evaluation.metrics})
        self._check_kl(metrics["kl"])
        if not evaluation.stop:
            self._save(progress, rollout)
        return evaluation.stop

    def finish(self) -> None:
        """Replace the policy by its average, if one is kept, and end the log."""
        self.average.adopt()
        self.monitor.finish()

    def _episodes(self, progress: Progress) -> int:
        return progress.rollout * self.settings.rollout_batch_size

    def _evaluate(self, progress: Progress) -> HeldOutEvaluation:
        """Evaluate the policy as it would be saved: its average, if one is kept."""
        if self.evaluator is None:
            return HeldOutEvaluation()
        started = time.perf_counter()
        with self.average.applied():
            result = self.evaluator.evaluate(progress.rollout, self._episodes(progress))
        seconds = time.perf_counter() - started
        return HeldOutEvaluation({**result.metrics, "held_out_seconds": seconds}, result.stop)

    def _check_kl(self, kl: float) -> None:
        settings = self.settings
        if settings.kl_stop is not None and kl > settings.kl_stop:
            raise DivergedError(
                f"KL to the reference is {kl:.1f} nats per response, above ppo.kl_stop "
                f"({settings.kl_stop:g})",
                hint="Raise ppo.beta or lower ppo.learning_rate.",
            )
        if kl > settings.kl_alarm:
            self.monitor.warn(
                f"KL to the reference is {kl:.1f} nats per response, above ppo.kl_alarm "
                f"({settings.kl_alarm:g}): reward hacking is likely"
            )

    def _keep_samples(self, rollout: Rollout, progress: Progress) -> None:
        times = self.settings.samples_per_run
        if self.keep_samples is None or times == 0 or not self.processes.is_main:
            return
        number, last = progress.rollout - 1, self.settings.rollouts - 1
        every = max(1, last // max(1, times - 1))
        if number % every == 0 or number == last:
            self.keep_samples(self._episodes(progress), rollout)

    def _save(self, progress: Progress, rollout: Rollout) -> None:
        every = self.settings.save_rollouts
        if self.checkpoints is None or every is None or progress.rollout % every:
            return
        # After the last rollout the stage's own output takes the checkpoint's place.
        if progress.rollout < self.settings.rollouts:
            require_sound(self.step, rollout)
            if self.processes.is_main:
                checkpoint.save(self.checkpoints, self.step, self.average.means, progress)
            self.processes.wait()
