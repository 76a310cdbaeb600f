"""The PPO algorithm: `PPOTrainer.train`."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import torch

from rlhfctl.errors import RecipeError
from rlhfctl.maths.advantages import shape_rewards
from rlhfctl.maths.kl import adapt_beta
from rlhfctl.maths.sequences import Sequences
from rlhfctl.maths.statistics import RunningMoments
from rlhfctl.ppo.checkpoint import Progress
from rlhfctl.ppo.engine import TransformersEngine
from rlhfctl.ppo.hooks import TrainingHooks
from rlhfctl.ppo.pass_size import PassSize, require_single_process
from rlhfctl.ppo.ppo_step import PPOStep
from rlhfctl.ppo.processes import Processes
from rlhfctl.ppo.rewards import Rewards
from rlhfctl.ppo.rollout import RolloutSampler, RowStream, estimate_advantages, final_scores
from rlhfctl.ppo.rollout_metrics import RolloutTimer, UpdateMetrics
from rlhfctl.ppo.unfinished_rollout import UnfinishedRollout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from rlhfctl.ppo.engine import Engine
    from rlhfctl.ppo.hooks import HeldOutEvaluator
    from rlhfctl.ppo.rollout import Rollout
    from rlhfctl.ppo.settings import PPOSettings, Roles
    from rlhfctl.run.monitor import Monitor


class _RewardModel:
    """Reward source: the reward model among the roles."""

    name = "rm"

    def __init__(self, roles: Roles) -> None:
        self.roles = roles

    def scores(self, batch: Sequences, rows: Sequence[int]) -> Tensor:
        return self.roles.scores(batch)


class PPOTrainer:
    """Proximal policy optimisation of a language model (Ouyang et al. 2022; Huang et al. 2024).

    Numbers of known bugs in comments are those of other trainers in docs/explanation/ppo.md, section 3.
    """

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
        evaluator: HeldOutEvaluator | None = None,
        engine: Engine | None = None,
    ) -> None:
        """Set up sampler, optimisers and hooks.

        Args:
            roles: Policy, reference, reward model and critic.
            prompts: Token ids per training prompt.
            settings: Hyperparameters.
            monitor: Receives metrics after every rollout.
            keep_samples: Called with the number of episodes and a rollout, `samples_per_run` times.
            checkpoints: Folder of checkpoints, written every `save_rollouts` and resumed from.
            rewards: Reward sources; None uses the roles' reward model.
            demonstrations: Prompt and response ids for PPO-ptx.
            processes: Processes of the run; None detects them with accelerate.
            evaluator: Evaluates the policy before the first rollout, every `eval_rollouts` and
                after the last one.
            engine: Samples the rollouts; None: transformers.

        Raises:
            RecipeError: A batch size is not a multiple of the number of processes.
            UsageError: `auto_batch` with several processes.
        """
        self.roles = roles
        self.settings = settings
        self.processes = processes or Processes()
        self._require_even_shares()
        if settings.auto_batch:
            require_single_process(self.processes)
        rewards = rewards or Rewards([_RewardModel(roles)], [1.0])
        # Sampling and training run out of memory at sizes of their own.
        sampling, passes = (
            PassSize(size, automatic=settings.auto_batch, say=monitor.note)
            for size in (settings.sampled_at_once, settings.forward_batch_size)
        )
        self.sampler = RolloutSampler(
            *(roles, rewards, prompts, settings, self.processes, passes),
            engine or TransformersEngine(roles, sampling),
        )
        self.stream = RowStream(len(prompts), settings.seed)
        self.demonstrations = demonstrations if settings.ptx_coefficient else ()
        self.ptx_stream = RowStream(len(demonstrations), settings.seed)
        self.ppo_step = PPOStep(roles, settings, self.processes, passes)
        self.progress = Progress(0, settings.beta, RunningMoments())
        # What a report of divergence needs: the last prompts, their responses, the last rollout.
        self.rows: Sequence[int] = ()
        self.sequences: Sequences | None = None
        self.rollout: Rollout | None = None
        self.hooks = TrainingHooks(
            settings, self.ppo_step, monitor, self.processes, keep_samples, checkpoints, evaluator
        )

    def train(self) -> dict[str, float]:
        """Run PPO and return the last rollout's metrics.

        Each rollout: 1. sample responses; 2. score them with every role and reward source; 3. make
        rewards of score and KL penalty; 4. estimate advantages; 5. update policy and critic over
        epochs of minibatches, with an early stop; 6. adapt beta; 7. evaluate, act on alarms, log,
        checkpoint.

        Raises:
            DivergedError: A role or loss is not finite, no minibatch could be applied, or KL to
                the reference exceeds `kl_stop`.
            CheckpointError: No checkpoint is valid, processes resume from different ones, or the
                one that an alarm goes back to is not usable.
        """
        settings, ppo_step = self.settings, self.ppo_step
        self.progress, unfinished = self.hooks.start(self.progress)
        progress, ended = self.progress, False
        self.stream.place, self.ptx_stream.place = progress.place, progress.ptx_place
        if unfinished is not None and unfinished.metrics is not None:
            progress, ended = self._after_rollout(unfinished)
        while not ended and (number := progress.rollout) < settings.rollouts:
            # Shuffling depends on seed and rollout number only, so a resumed run shuffles alike.
            torch.manual_seed(settings.seed * 1_000_003 + number)

            # 1. to 4., unless a run resumes within the rollout.
            if unfinished is None or unfinished.metrics is not None:
                timer = RolloutTimer()
                rollout = self._collect(number)
                timer.mark_collected()
                unfinished = UnfinishedRollout(rollout, timer, UpdateMetrics())
            rollout, update = unfinished.rollout, unfinished.update
            self.rollout = rollout

            # 5. Update: every minibatch is one optimiser step (1); the critic alone in its warm-up.
            rate_factor = settings.learning_rate_factor(number)
            ppo_step.set_rates(rate_factor)
            trained = settings.trained_in(number)
            # `epochs` times over the rollout
            for minibatch in islice(self._minibatches(rollout), unfinished.minibatches, None):
                self.hooks.before_minibatch(self._progress_within(), unfinished)
                unfinished.minibatches += 1
                losses = ppo_step.accumulate(rollout, minibatch, trained, self._ptx_batch())
                if ppo_step.must_skip(losses):
                    ppo_step.drop()
                    update.skip()
                elif losses.get("approx_kl", 0.0) > (settings.kl_early_stop or float("inf")):
                    ppo_step.drop()
                    progress.early_stops += 1
                    break
                elif (norms := ppo_step.step(trained)) is None:
                    update.skip()
                else:
                    update.add(losses | norms)
            progress.skipped += update.counts["skipped"]
            metrics = rollout.metrics() | update.means()
            self.hooks.average.update()
            metrics |= self._rates(rate_factor) | unfinished.timer.metrics(rollout)

            # 6. Adapt beta: by the KL per response that was trained on, not per token (23, 24).
            if settings.kl_target is not None:
                progress.beta = adapt_beta(
                    *(progress.beta, metrics["kl"], settings.kl_target),
                    *(len(rollout.rows), settings.kl_horizon),
                )

            # 7. Evaluate, act on alarms, log, checkpoint.
            self.progress = self._progress_within()
            self.progress.rollout += 1
            unfinished.metrics = metrics
            progress, ended = self._after_rollout(unfinished)
        self.hooks.finish()
        return dict(unfinished.metrics or {}) if unfinished is not None else {}

    def _collect(self, number: int) -> Rollout:
        """Return a new rollout: steps 1 to 4 of `train`."""
        settings, progress = self.settings, self.progress
        with self.hooks.collecting(progress):
            # 1. Sample: at the temperature of training, never greedily (known bug 19).
            rows = self._next_prompts()
            self.rows, self.sequences = rows, None
            sampled = self.sampler.sample(rows, number)
            self.sequences = sampled.sequences
            self.hooks.stop_together()

            # 2. Score: log-probabilities by the training forward pass, so ratios start at 1 (11).
            episodes = self.sampler.score(sampled, rows)
            self.hooks.stop_together()

        # 3. Reward: the KL penalty enters per token, as k1 without clamp (6); the score enters
        # at the last response token, not on the pad after it (3). A loss penalty replaces the
        # one here (18).
        lengths = episodes.sequences.response_lengths
        scores, progress.moments = final_scores(
            episodes.model_scores, episodes.ended, lengths, settings, progress.moments
        )
        penalty = progress.beta if settings.kl_penalty == "reward" else 0.0
        rewards = shape_rewards(scores, episodes.token_kl, episodes.mask, penalty)

        # 4. Advantage: values of padding never enter (15).
        estimate = estimate_advantages(rewards, episodes.values, episodes.mask, settings)
        return episodes.with_advantages(scores, rewards, estimate, progress.beta)

    def _after_rollout(self, unfinished: UnfinishedRollout) -> tuple[Progress, bool]:
        """Do step 7; return the state to go on from, and True to end training."""
        self.progress, ended = self.hooks.after_rollout(unfinished, self.progress)
        # A rollback takes the prompts and demonstrations of the restored state again.
        self.stream.place, self.ptx_stream.place = self.progress.place, self.progress.ptx_place
        return self.progress, ended

    def _progress_within(self) -> Progress:
        """Return the progress with the prompts and demonstrations that were taken since."""
        return replace(self.progress, place=self.stream.place, ptx_place=self.ptx_stream.place)

    def _require_even_shares(self) -> None:
        count, settings = self.processes.count, self.settings
        sizes = {
            "rollout_batch_size": settings.rollout_batch_size,
            "minibatch_size": settings.minibatch_size,
        }
        if settings.ptx_coefficient:
            sizes["ptx_batch_size"] = settings.ptx_batch_size
        for name, size in sizes.items():
            if size % count:
                raise RecipeError(
                    f"{name} ({size}) is not a multiple of the {count} processes",
                    f"ppo.{name}",
                    f"Make it a multiple of {count}, or start another number of processes.",
                )

    def _next_prompts(self) -> list[int]:
        """Return a prompt index per episode, `responses_per_prompt` in a row for each prompt."""
        copies = self.settings.responses_per_prompt
        prompts = self.stream.take(self.settings.rollout_batch_size // copies)
        return [row for row in prompts for _ in range(copies)]

    def _minibatches(self, rollout: Rollout) -> Iterator[Tensor]:
        """Yield each epoch's minibatches of episode indices, in a fresh permutation per epoch."""
        for _ in range(self.settings.epochs):
            order = torch.randperm(self.settings.rollout_batch_size).to(rollout.ended.device)
            yield from order.split(self.settings.minibatch_size)

    def _ptx_batch(self) -> Sequences | None:
        if not self.demonstrations:
            return None
        rows = self.ptx_stream.take(self.settings.ptx_batch_size)
        prompts, responses = zip(*(self.demonstrations[row] for row in rows), strict=True)
        return Sequences.from_lists(prompts, responses, self.roles.pad_token_id, self.roles.device)

    def _rates(self, factor: float) -> dict[str, float]:
        rates = {
            "beta": self.progress.beta,
            "learning_rate": self.settings.learning_rate * factor,
        }
        if self.settings.has_critic:
            rates["value_learning_rate"] = self.settings.value_learning_rate * factor
        return rates
