"""Bookkeeping around the PPO loop: weight averaging, samples, KL limits, checkpoints."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import torch

from rlhfctl import activity
from rlhfctl.errors import CheckpointError, DivergedError, EnvironmentFault
from rlhfctl.ppo import checkpoint
from rlhfctl.ppo.alarm_actor import AlarmActor, Response
from rlhfctl.ppo.safe_points import SafePoints, stop_together
from rlhfctl.ppo.soundness import require_sound
from rlhfctl.run import stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from rlhfctl.ppo.checkpoint import Progress
    from rlhfctl.ppo.ppo_step import PPOStep
    from rlhfctl.ppo.processes import Processes
    from rlhfctl.ppo.rollout import Rollout
    from rlhfctl.ppo.settings import PPOSettings
    from rlhfctl.ppo.unfinished_rollout import UnfinishedRollout
    from rlhfctl.run.monitor import Monitor


@dataclass(frozen=True)
class HeldOutEvaluation:
    """Result of one held-out evaluation.

    Attributes:
        metrics: Logged next to the rollout's metrics.
        stop: True to end training.
        alarms: Names of the alarms whose condition holds at this evaluation.
        has_best: True if the best policy so far is saved, so that a stop needs to restore none.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    stop: bool = False
    alarms: Sequence[str] = ()
    has_best: bool = False


class HeldOutEvaluator(Protocol):
    """Evaluates the policy on held-out prompts; called on all processes."""

    def evaluate(self, rollout: int, episodes: int) -> HeldOutEvaluation:
        """Evaluate the policy after `rollout` rollouts and `episodes` episodes."""

    def resume_from(self, rollout: int) -> None:
        """Drop all evaluations after rollout `rollout`, from which training resumes."""


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
    """Everything that happens around rollouts and does not change what is learned.

    A request to stop is met at the next safe point, the same in all processes. While responses are
    sampled and scored, weights are those of the rollout's start, so a single process leaves that at
    once and the rollout is done again. From then on checkpoints hold the unfinished rollout.
    """

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
        self.actor = AlarmActor(settings, step, self.average.means, checkpoints, monitor)
        self.points = SafePoints(processes, settings.save_minutes)
        self._saved_rollout = -1
        self._trained_on: Rollout | None = None

    def start(self, progress: Progress) -> tuple[Progress, UnfinishedRollout | None]:
        """Resume from the newest checkpoint, if any; else evaluate the initial policy.

        Returns:
            Progress to go on from, and the unfinished rollout of a checkpoint within one.

        Raises:
            Stopped: A stop was requested during the evaluation; there is nothing to save.
            CheckpointError: No checkpoint is valid, or processes resume from different ones.
            DiskFullError: The disk has no room for the checkpoints.
        """
        restored, unfinished = None, None
        if self.checkpoints is not None:
            if self.settings.save_rollouts is not None or self.settings.save_minutes is not None:
                checkpoint.require_room(self.checkpoints, self.step)
            restored = checkpoint.load_latest(
                self.checkpoints, self.step, self.average.means, self.monitor
            )
        evaluated = -1
        if restored is not None:
            progress, unfinished = restored
            evaluating = unfinished is not None and unfinished.metrics is not None
            evaluated = progress.rollout - evaluating
            within = " and part of the next" if unfinished is not None and not evaluating else ""
            self.monitor.note(f"Resuming PPO after rollout {progress.rollout}{within}")
            self._saved_rollout = -1 if unfinished is not None else progress.rollout
        if self.evaluator is not None:
            self.evaluator.resume_from(evaluated)
        rollouts = self.processes.gather_items([progress.rollout])
        if len(set(rollouts)) > 1:
            raise CheckpointError(
                f"processes would resume from different rollouts: {rollouts}",
                str(self.checkpoints),
                "Keep the run folder on storage that all nodes share.",
            )
        total = self.settings.rollouts * self.settings.rollout_batch_size
        self.monitor.start("ppo", total, "episodes")
        if restored is None and self.evaluator is not None:
            evaluation = self._evaluate(progress)
            self.monitor.step(0, evaluation.metrics)
            response = self._respond(progress, evaluation)
            progress = response.progress
            if response.save:
                self._write(progress)
        self.points.start()
        return progress, unfinished

    @contextmanager
    def collecting(self, progress: Progress) -> Iterator[None]:
        """Collect a rollout within the context; a stop or a lost server saves the state before it.

        Raises:
            Stopped: A stop was requested.
            EnvironmentFault: The code within raised it.
        """
        try:
            with self._leaving_at_once():
                yield
        except stop.Stopped as error:
            stop.begin(error.number)
            if not error.urgent:
                self._write_before(progress)
            raise
        except EnvironmentFault:
            # Several processes would wait for one another: the others may have met no fault.
            if self.processes.count == 1:
                self._write_before(progress)
            raise

    def _write_before(self, progress: Progress) -> None:
        """Save the state at the start of the rollout that is being collected."""
        if self._saved_rollout != progress.rollout:
            self._write(progress)
        self.monitor.note(
            f"saved a checkpoint before rollout {progress.rollout + 1}, which is sampled anew on "
            "resuming"
        )

    def stop_together(self) -> None:
        """Stop, within `collecting`, if any process has been asked to.

        Raises:
            Stopped: One was asked to.
        """
        stop_together(self.processes)

    def before_minibatch(self, progress: Progress, unfinished: UnfinishedRollout) -> None:
        """Save with the unfinished rollout, if that is due or a stop is requested.

        Args:
            progress: State with the prompts and demonstrations taken so far.
            unfinished: The rollout that is being trained on.

        Raises:
            Stopped: A stop was requested.
        """
        self._trained_on = unfinished.rollout
        per_epoch = -(-self.settings.rollout_batch_size // self.settings.minibatch_size)
        epoch, done = divmod(unfinished.minibatches, per_epoch)
        activity.publish(
            f"epoch {epoch + 1}/{self.settings.epochs}", done, per_epoch, "minibatches"
        )
        save, number = self.points.reached()
        if save or number:
            self._write(progress, unfinished)
        if number:
            self.monitor.note(
                f"saved a checkpoint in rollout {progress.rollout + 1}, after "
                f"{unfinished.minibatches} minibatches"
            )
            raise stop.begin(number)

    def after_rollout(
        self, unfinished: UnfinishedRollout, progress: Progress
    ) -> tuple[Progress, bool]:
        """Keep samples, evaluate, act on alarms, log, check the KL limits, save.

        Args:
            unfinished: The rollout, with its metrics.
            progress: State after it.

        Returns:
            State to go on from, and True to end training.

        Raises:
            CheckpointError: The checkpoint that an alarm goes back to is not usable.
            DivergedError: KL to the reference exceeds `kl_stop`, or the state to be kept is not
                sound.
            Stopped: A stop was requested; the state has been saved.
        """
        settings = self.settings
        rollout, metrics = unfinished.rollout, unfinished.metrics or {}
        self._trained_on = rollout
        self._keep_samples(rollout, progress)
        last = progress.rollout == settings.rollouts
        if last:
            require_sound(self.step, rollout)
        every = settings.eval_rollouts
        evaluation, response = HeldOutEvaluation(), Response(progress)
        if every is not None and (last or progress.rollout % every == 0):
            evaluation = self._evaluate(progress, unfinished)
            response = self._respond(progress, evaluation, last=last)
            progress = response.progress
        acts = {} if settings.on_alarm == "warn" else {"alarm_acts": len(progress.alarms.acts)}
        self.monitor.step(self._episodes(progress), {**metrics, **evaluation.metrics, **acts})
        if response.restored:
            self._trained_on = None
        else:
            self._check_kl(metrics["kl"])
        ended = evaluation.stop or response.stop
        if not ended:
            self._save(progress, required=response.save)
        return progress, ended

    def _respond(
        self, progress: Progress, evaluation: HeldOutEvaluation, *, last: bool = False
    ) -> Response:
        """Act on an evaluation's alarms, unless it ends training itself."""
        if evaluation.stop:
            return Response(progress)
        return self.actor.respond(
            progress, evaluation.alarms, has_best=evaluation.has_best, last=last
        )

    def finish(self) -> None:
        """Replace the policy by its average, if one is kept, and end the log."""
        self.average.adopt()
        self.monitor.finish()

    def _episodes(self, progress: Progress) -> int:
        return progress.rollout * self.settings.rollout_batch_size

    def _evaluate(
        self, progress: Progress, unfinished: UnfinishedRollout | None = None
    ) -> HeldOutEvaluation:
        """Evaluate the policy as it would be saved: its average, if one is kept.

        A stop leaves the evaluation to the resumed run, if there is an unfinished rollout to save.
        """
        if self.evaluator is None:
            return HeldOutEvaluation()
        started = time.perf_counter()
        try:
            with (
                self._leaving_at_once(),
                self.average.applied(),
                activity.within("held-out"),
            ):
                result = self.evaluator.evaluate(progress.rollout, self._episodes(progress))
        except stop.Stopped as error:
            stop.begin(error.number)
            if unfinished is not None and not error.urgent:
                self._write(progress, unfinished)
                self.monitor.note(
                    f"saved a checkpoint after rollout {progress.rollout}, whose held-out "
                    "evaluation is done on resuming"
                )
            raise
        seconds = time.perf_counter() - started
        return replace(result, metrics={**result.metrics, "held_out_seconds": seconds})

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

    def _save(self, progress: Progress, *, required: bool) -> None:
        """Save between two rollouts, if that is required or due, or a stop is requested.

        After the last rollout the stage's own output takes the checkpoint's place.

        Raises:
            Stopped: A stop was requested.
        """
        due, number = self.points.reached()
        if progress.rollout >= self.settings.rollouts:
            return
        every = self.settings.save_rollouts
        if required or due or number or (every is not None and progress.rollout % every == 0):
            self._write(progress)
        if number:
            self.monitor.note(f"saved a checkpoint after rollout {progress.rollout}")
            raise stop.begin(number)

    def _write(self, progress: Progress, unfinished: UnfinishedRollout | None = None) -> None:
        """Write a checkpoint, in process 0, once all processes are here."""
        if self.checkpoints is None:
            return
        if self._trained_on is not None:
            require_sound(self.step, self._trained_on)
        if self.processes.is_main:
            checkpoint.save(self.checkpoints, self.step, self.average.means, progress, unfinished)
        self.processes.wait()
        self.points.saved()
        self._saved_rollout = -1 if unfinished is not None else progress.rollout

    def _leaving_at_once(self) -> AbstractContextManager[None]:
        """Meet a request to stop at once within the context; several processes must agree first."""
        return stop.at_once() if self.processes.count == 1 else nullcontext()
