"""The PPO loop: collect, score, advantages; epochs of minibatches; report."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import torch

from rlhfctl.errors import CheckpointError, DivergedError, RecipeError
from rlhfctl.maths.kl import adapt_beta
from rlhfctl.maths.sequences import Sequences
from rlhfctl.maths.statistics import RunningMoments
from rlhfctl.ppo import checkpoint
from rlhfctl.ppo.held_out import HeldOutEvaluation
from rlhfctl.ppo.ppo_step import PPOStep
from rlhfctl.ppo.processes import Processes
from rlhfctl.ppo.progress import Progress
from rlhfctl.ppo.rewards import Rewards
from rlhfctl.ppo.rollout import Collector
from rlhfctl.ppo.streams import RowStream
from rlhfctl.run.memory import peak_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from rlhfctl.ppo.held_out import HeldOutEvaluator
    from rlhfctl.ppo.rollout import Rollout
    from rlhfctl.ppo.settings import PPOSettings, Roles, TrainedRole
    from rlhfctl.run.monitor import Monitor


class _RewardModel:
    """The roles' own reward model as the one source of scores."""

    name = "rm"

    def __init__(self, roles: Roles) -> None:
        self.roles = roles

    def scores(self, batch: Sequences, rows: Sequence[int]) -> Tensor:
        return self.roles.scores(batch)


class PPOTrainer:
    """Proximal policy optimisation of a language model (Ouyang et al. 2022; Huang et al. 2024)."""

    def __init__(
        self,
        roles: Roles,
        prompts: Sequence[Sequence[int]],
        settings: PPOSettings,
        monitor: Monitor,
        keep_samples: Callable[[int, Rollout], None] | None = None,
        checkpoints: Path | None = None,
        rewards: Rewards | None = None,
        demonstrations: Sequence[tuple[Sequence[int], Sequence[int]]] = (),
        processes: Processes | None = None,
        watch: HeldOutEvaluator | None = None,
    ) -> None:
        """Take the roles, the prompts and the numbers.

        Args:
            roles: The four roles.
            prompts: Token ids of the prompts to train on.
            settings: The numbers.
            monitor: Hears of every rollout.
            keep_samples: Called with the episodes so far and a rollout, `samples_per_run` times.
            checkpoints: Where state is kept every `save_rollouts`, and where a run that was cut
                short goes on from.
            rewards: The givers of scores; None: the roles' own reward model.
            demonstrations: Prompts and responses for PPO-ptx, where it is on.
            processes: Those of the run; None: those that accelerate knows of.
            watch: Looks at the policy before the first rollout, every `eval_rollouts` and after
                the last one.
        """
        self.roles = roles
        self.settings = settings
        self.monitor = monitor
        self.keep_samples = keep_samples
        self.processes = processes or Processes()
        self._check_shares()
        rewards = rewards or Rewards([_RewardModel(roles)], [1.0])
        self.collector = Collector(roles, rewards, prompts, settings, self.processes)
        self.stream = RowStream(len(prompts), settings.seed)
        self.demonstrations = demonstrations if settings.ptx_coefficient else ()
        self.ptx_stream = RowStream(len(demonstrations), settings.seed)
        self.update = PPOStep(roles, settings, self.processes)
        self.progress = Progress(0, settings.beta, RunningMoments())
        self.checkpoints = checkpoints
        self.watch = watch if settings.eval_rollouts is not None else None

    def _check_shares(self) -> None:
        count = self.processes.count
        wanted = {
            "rollout_batch_size": self.settings.rollout_batch_size,
            "minibatch_size": self.settings.minibatch_size,
        }
        if self.settings.ptx_coefficient:
            wanted["ptx_batch_size"] = self.settings.ptx_batch_size
        for name, size in wanted.items():
            if size % count:
                raise RecipeError(
                    f"{name} ({size}) cannot be shared out evenly among {count} processes",
                    f"ppo.{name}",
                    f"Make it a multiple of {count}, or start another number of processes.",
                )

    def train(self) -> dict[str, float]:
        """Run all rollouts.

        For each rollout: 1. collect episodes with their rewards and advantages; 2. for each epoch
        and minibatch: losses, backward, step; 3. let the controller move beta; 4. look at the
        policy on held-out prompts, now and then; 5. report; 6. keep the state. At the end the
        policy's running mean takes its place, if one is kept.

        Returns:
            The last rollout's metrics.

        Raises:
            DivergedError: A figure is not finite, no minibatch could be applied, or KL to the
                reference is beyond `kl_stop`.
            CheckpointError: There are checkpoints, but none is sound, or not the same everywhere.
        """
        settings, metrics = self.settings, {}
        self._resume()
        self.monitor.start("ppo", settings.rollouts * settings.rollout_batch_size, "episodes")
        if self.progress.rollout == 0 and self.watch is not None:
            self.monitor.step(0, self._look().metrics)
        while self.progress.rollout < settings.rollouts:
            metrics = self._one_rollout()
            look = self._look() if self._due() else HeldOutEvaluation()
            self.monitor.step(self._episodes(), metrics | dict(look.metrics))
            self._watch_kl(metrics["kl"])
            if look.stop:
                break
            self._save()
        self.update.adopt_average()
        self.monitor.finish()
        return metrics

    def _episodes(self) -> int:
        return self.progress.rollout * self.settings.rollout_batch_size

    def _due(self) -> bool:
        rollout, every = self.progress.rollout, self.settings.eval_rollouts
        last = rollout == self.settings.rollouts
        return self.watch is not None and every is not None and (last or rollout % every == 0)

    def _look(self) -> HeldOutEvaluation:
        """Have the policy looked at as it would be saved: its running mean, if one is kept."""
        if self.watch is None:
            return HeldOutEvaluation()
        started = time.perf_counter()
        with self.update.averaged():
            look = self.watch.look(self.progress.rollout, self._episodes())
        return HeldOutEvaluation(
            {**look.metrics, "held_out_seconds": time.perf_counter() - started}, look.stop
        )

    def _resume(self) -> None:
        found = checkpoint.load_latest(self.checkpoints, self.update) if self.checkpoints else None
        if found is not None:
            self.progress = found
            self.stream.place, self.ptx_stream.place = found.place, found.ptx_place
            self.monitor.note(f"ppo goes on after rollout {found.rollout}")
        if self.watch is not None:
            self.watch.resume_from(self.progress.rollout if found is not None else -1)
        places = self.processes.gather_items([self.progress.rollout])
        if len(set(places)) > 1:
            raise CheckpointError(
                f"processes would go on from different rollouts: {places}",
                str(self.checkpoints),
                "Keep the run folder on storage that all nodes share.",
            )

    def _save(self) -> None:
        every = self.settings.save_rollouts
        if self.checkpoints is None or every is None or self.progress.rollout % every:
            return
        # The last rollout's end is the stage's own output.
        if self.progress.rollout < self.settings.rollouts:
            self.progress.place = self.stream.place
            self.progress.ptx_place = self.ptx_stream.place
            if self.processes.is_main:
                checkpoint.save(self.checkpoints, self.update, self.progress)
            self.processes.wait()

    def _one_rollout(self) -> dict[str, float]:
        settings, progress, started = self.settings, self.progress, time.perf_counter()
        number = progress.rollout
        # Shuffling is a function of seed and rollout alone, so that a resumed run shuffles alike.
        torch.manual_seed(settings.seed * 1_000_003 + number)

        each = settings.responses_per_prompt
        taken = self.stream.take(settings.rollout_batch_size // each)
        rows = [row for row in taken for _ in range(each)]
        rollout, progress.moments = self.collector.collect(
            rows, number, progress.beta, progress.moments
        )
        collected = time.perf_counter()

        factor = settings.learning_rate_factor(number)
        self.update.set_rates(factor)
        metrics = rollout.metrics() | self._epochs(rollout, self._learners(number))
        self.update.average_policy()

        metrics |= {
            "beta": progress.beta,
            "learning_rate": settings.learning_rate * factor,
            "value_learning_rate": settings.value_learning_rate * factor,
            "rollout_seconds": collected - started,
            "update_seconds": time.perf_counter() - collected,
            "episodes_per_second": len(rows) / (time.perf_counter() - started),
            "tokens_per_second": float(rollout.sequences.response_lengths.sum())
            / (time.perf_counter() - started),
            "memory_bytes": peak_memory_bytes(),
        }
        if settings.kl_target is not None:
            progress.beta = adapt_beta(
                progress.beta, metrics["kl"], settings.kl_target, len(rows), settings.kl_horizon
            )
        progress.rollout += 1
        self._keep(number, rollout)
        return metrics

    def _learners(self, number: int) -> Sequence[TrainedRole]:
        """Return the roles that learn from a rollout; the critic alone in its warm-up."""
        warming = number < self.settings.critic_warmup_rollouts
        return ("critic",) if warming else self.settings.trained

    def _epochs(self, rollout: Rollout, roles: Sequence[TrainedRole]) -> dict[str, float]:
        """Go over a rollout `epochs` times in fresh order, a step a minibatch."""
        settings, counts = self.settings, Counter[str]()
        sums: defaultdict[str, float] = defaultdict(float)
        for _ in range(settings.epochs):
            order = torch.randperm(settings.rollout_batch_size).to(rollout.ended.device)
            for rows in order.split(settings.minibatch_size):
                metrics = self.update.accumulate(rollout, rows, roles, self._demonstrations())
                if self.update.refused(metrics):
                    self.update.drop()
                    counts["skipped"] += 1
                    continue
                limit = settings.kl_early_stop
                if limit is not None and metrics.get("approx_kl", 0.0) > limit:
                    self.update.drop()
                    self.progress.early_stops += 1
                    return self._means(sums, counts)
                norms = self.update.step(roles)
                if norms is None:
                    counts["skipped"] += 1
                    continue
                for name, value in (metrics | norms).items():
                    sums[name] += value
                counts["applied"] += 1
        return self._means(sums, counts)

    def _demonstrations(self) -> Sequences | None:
        if not self.demonstrations:
            return None
        rows = self.ptx_stream.take(self.settings.ptx_batch_size)
        prompts, responses = zip(*(self.demonstrations[row] for row in rows), strict=True)
        return Sequences.from_lists(prompts, responses, self.roles.pad_token_id, self.roles.device)

    def _means(self, sums: dict[str, float], counts: Counter[str]) -> dict[str, float]:
        self.progress.skipped += counts["skipped"]
        if not counts["applied"]:
            raise DivergedError(
                "no minibatch of a rollout could be applied: ratios or losses are out of bounds",
                hint="Lower ppo.learning_rate, or raise ppo.minibatch_size.",
            )
        means = {name: total / counts["applied"] for name, total in sums.items()}
        return means | {
            "updates": float(counts["applied"]),
            "skipped_minibatches": float(counts["skipped"]),
        }

    def _watch_kl(self, kl: float) -> None:
        settings = self.settings
        if settings.kl_stop is not None and kl > settings.kl_stop:
            raise DivergedError(
                f"KL to the reference is {kl:.1f} nats a response, beyond ppo.kl_stop "
                f"({settings.kl_stop:g})",
                hint="Raise ppo.beta or lower ppo.learning_rate.",
            )
        if kl > settings.kl_alarm:
            self.monitor.warn(
                f"KL to the reference is {kl:.1f} nats a response, beyond ppo.kl_alarm "
                f"({settings.kl_alarm:g}): scores there are often hacked"
            )

    def _keep(self, number: int, rollout: Rollout) -> None:
        times = self.settings.samples_per_run
        if self.keep_samples is None or times == 0 or not self.processes.is_main:
            return
        every = max(1, (self.settings.rollouts - 1) // max(1, times - 1))
        if number % every == 0 or number == self.settings.rollouts - 1:
            self.keep_samples(self._episodes(), rollout)
