"""Rollouts: responses, role outputs, scores, rewards and advantages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch.nn.functional import pad

from rlhfctl import activity
from rlhfctl.errors import DivergedError
from rlhfctl.maths.advantages import (
    Advantages,
    batch_mean_advantages,
    generalized_advantages,
    group_normalized_advantages,
    leave_one_out_advantages,
)
from rlhfctl.maths.kl import k1, k3
from rlhfctl.maths.masking import masked_mean, whiten
from rlhfctl.maths.sequences import Sequences
from rlhfctl.maths.statistics import explained_variance
from rlhfctl.ppo.engine import Sampled, TransformersEngine, mismatch, padded, require_agreement
from rlhfctl.ppo.pass_size import PassSize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from rlhfctl.maths.statistics import RunningMoments
    from rlhfctl.ppo.engine import Engine
    from rlhfctl.ppo.processes import Processes
    from rlhfctl.ppo.rewards import Rewards
    from rlhfctl.ppo.settings import PPOSettings, Roles


@dataclass(frozen=True)
class Episodes:
    """Sampled and scored episodes; [batch, time] tensors are 0 where masked.

    Attributes:
        sequences: Prompts and responses.
        rows: Prompt index per episode.
        ended: [batch], True if the response ends with a stop token.
        log_probs: [batch, time], policy, by the training forward pass.
        engine_log_probs: [batch, time], policy, by the engine that sampled; None if it gave none.
        reference_log_probs: [batch, time].
        entropy: [batch, time], policy, in nats.
        values: [batch, time], critic; None without one.
        model_scores: [batch], reward model, or several sources combined by their rule.
        source_metrics: Metrics per reward source, if there are several.
    """

    sequences: Sequences
    rows: Sequence[int]
    ended: Tensor
    log_probs: Tensor
    engine_log_probs: Tensor | None
    reference_log_probs: Tensor
    entropy: Tensor
    values: Tensor | None
    model_scores: Tensor
    source_metrics: dict[str, float]

    @property
    def mask(self) -> Tensor:
        """[batch, time], True on response tokens."""
        return self.sequences.mask

    @property
    def token_kl(self) -> Tensor:
        """[batch, time], k1 per token, in nats."""
        return k1(self.log_probs, self.reference_log_probs)

    @property
    def kl(self) -> Tensor:
        """[batch], k1 summed over each response, in nats."""
        return self.token_kl.sum(dim=1)

    def with_advantages(
        self, scores: Tensor, rewards: Tensor, estimate: Advantages, beta: float
    ) -> Rollout:
        """Return the rollout that these episodes, rewards and advantages make."""
        return Rollout(
            **vars(self),
            scores=scores,
            rewards=rewards,
            advantages=estimate.advantages,
            returns=estimate.returns,
            beta=beta,
        )


@dataclass(frozen=True)
class Rollout(Episodes):
    """Episodes with rewards and advantages: the training data of one PPO update.

    Attributes:
        scores: [batch], after clipping and replacement of unended responses' scores.
        rewards: [batch, time], before any whitening.
        advantages: [batch, time], whitened if `whiten_advantages`.
        returns: [batch, time], from advantages before whitening.
        beta: KL coefficient.
    """

    scores: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor
    beta: float

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the rollout; `docs/reference/metrics.md` defines each."""
        lengths = self.sequences.response_lengths.float()
        per_token_k3 = k3(self.log_probs, self.reference_log_probs)
        metrics = {
            "score": float(self.model_scores.mean()),
            "objective_score": float(self.scores.mean()),
            "reward": float(self.rewards.sum(dim=1).mean()),
            "kl": float(self.kl.mean()),
            "kl_k3": float(per_token_k3.sum(dim=1).mean()),
            "entropy": float(masked_mean(self.entropy, self.mask)),
            "response_length": float(lengths.mean()),
            "eos_share": float(self.ended.float().mean()),
        }
        if self.values is not None:
            metrics["explained_variance"] = explained_variance(self.values, self.returns, self.mask)
        if self.engine_log_probs is not None:
            mean, largest = mismatch(self.log_probs, self.engine_log_probs, self.mask)
            metrics |= {"engine_mismatch": mean, "engine_mismatch_max": largest}
        return metrics | self.source_metrics


class _Scored(NamedTuple):
    """Role outputs per episode: [batch, time], and `source_scores` [batch, sources]."""

    log_probs: Tensor
    engine_log_probs: Tensor
    reference_log_probs: Tensor
    entropy: Tensor
    values: Tensor
    source_scores: Tensor


def score_rollout(
    roles: Roles, rewards: Rewards, sampled: Sampled, rows: Sequence[int], settings: PPOSettings
) -> _Scored:
    """Run every role and reward source on a batch, `forward_batch_size` episodes per pass.

    Args:
        roles: Policy, reference and critic.
        rewards: Reward sources.
        sampled: Episodes.
        rows: Prompt index per episode.
        settings: Read for the critic and the size of a pass.
    """
    batch, of_engine = sampled.sequences, sampled.engine_log_probs
    shape, device = batch.mask.shape, batch.ids.device
    parts = _Scored(
        log_probs=torch.zeros(shape, device=device),
        engine_log_probs=torch.zeros(shape, device=device) if of_engine is None else of_engine,
        reference_log_probs=torch.zeros(shape, device=device),
        entropy=torch.zeros(shape, device=device),
        values=torch.zeros(shape, device=device),
        source_scores=torch.zeros(shape[0], len(rewards.sources), device=device),
    )
    done = 0
    for chunk, part in batch.in_chunks(settings.forward_batch_size):
        activity.publish("scoring", done, len(batch))
        done += len(part)
        width = part.response_width
        if settings.joint_critic:
            policy, parts.values[chunk, :width] = roles.log_probs_and_values(part)
        else:
            policy = roles.log_probs("policy", part)
        parts.log_probs[chunk, :width] = policy.log_probs
        parts.entropy[chunk, :width] = policy.entropy
        parts.reference_log_probs[chunk, :width] = roles.log_probs("reference", part).log_probs
        if settings.has_critic and not settings.joint_critic:
            parts.values[chunk, :width] = roles.values(part)
        chunk_prompts = [rows[i] for i in chunk.tolist()]
        parts.source_scores[chunk] = rewards.scores_per_source(part, chunk_prompts).T
    return parts


class ScoreRules(Protocol):
    """Bounds and replacement of scores, as in the recipe's `ppo` section."""

    @property
    def score_clip(self) -> float | None:
        """Bound on the absolute score."""

    @property
    def missing_eos_score(self) -> float | None:
        """Score of a response that did not end or is too short."""

    @property
    def min_response_length(self) -> int | None:
        """Shortest response that keeps its score, in tokens."""


def objective_scores(
    scores: Tensor, ended: Tensor, lengths: Tensor, settings: ScoreRules
) -> Tensor:
    """Return the scores that PPO maximises, [batch]: clipped, and replaced where incomplete.

    A response is incomplete if it did not end (Ziegler et al. 2019) or is too short.

    Args:
        scores: [batch], normalised.
        ended: [batch].
        lengths: [batch], response lengths in tokens.
        settings: Clip and replacement score.
    """
    if settings.score_clip is not None:
        scores = scores.clamp(-settings.score_clip, settings.score_clip)
    if settings.missing_eos_score is not None:
        complete = _complete(ended, lengths, settings)
        # Replaced, not reduced: a high score must not survive truncation (known bug 4).
        scores = torch.where(complete, scores, settings.missing_eos_score)
    return scores


def _complete(ended: Tensor, lengths: Tensor, settings: ScoreRules) -> Tensor:
    return ended & (lengths >= (settings.min_response_length or 0))


def final_scores(
    model_scores: Tensor,
    ended: Tensor,
    lengths: Tensor,
    settings: PPOSettings,
    moments: RunningMoments,
) -> tuple[Tensor, RunningMoments]:
    """Return the final scores [batch] and the updated running moments.

    Scores are normalised by running statistics if set, then bounded by `objective_scores`.

    Args:
        model_scores: [batch].
        ended: [batch].
        lengths: [batch], response lengths in tokens.
        settings: Normalisation, clip and replacement score.
        moments: Running moments of all scores so far.
    """
    scores = model_scores
    if settings.score_normalization == "running":
        # Replaced scores stay out of the statistics (known bug 27 in docs/explanation/ppo.md).
        replaces = settings.missing_eos_score is not None
        counted = _complete(ended, lengths, settings) if replaces else torch.ones_like(ended)
        moments = moments.update(scores[counted])
        scores = (scores - moments.mean) / moments.deviation
    return objective_scores(scores, ended, lengths, settings), moments


def estimate_advantages(
    rewards: Tensor, values: Tensor | None, mask: Tensor, settings: PPOSettings
) -> Advantages:
    """Return advantages, whitened if set, and returns computed before whitening.

    Args:
        rewards: [batch, time]; each prompt's `responses_per_prompt` episodes in consecutive rows.
        values: [batch, time]; None without a critic.
        mask: [batch, time].
        settings: Estimator and whitening.
    """
    used = whiten(rewards, mask, shift_mean=False) if settings.whiten_rewards else rewards
    if values is not None:
        estimate = generalized_advantages(used, values, mask, settings.gamma, settings.gae_lambda)
    elif settings.advantage_estimator == "rloo":
        estimate = leave_one_out_advantages(used, mask, settings.responses_per_prompt)
    elif settings.advantage_estimator == "grpo":
        estimate = group_normalized_advantages(used, mask, settings.responses_per_prompt)
    else:
        estimate = batch_mean_advantages(used, mask, settings.gamma)
    if settings.whiten_advantages:
        # Over response tokens only, mean removed (known bugs 17 and 25 in docs/explanation/ppo.md).
        estimate = estimate._replace(advantages=whiten(estimate.advantages, mask))
    return estimate


class RolloutSampler:
    """Samples and scores episodes: each process its share, then gathered on all of them."""

    def __init__(
        self,
        roles: Roles,
        rewards: Rewards,
        prompts: Sequence[Sequence[int]],
        settings: PPOSettings,
        processes: Processes,
        pass_size: PassSize | None = None,
        engine: Engine | None = None,
    ) -> None:
        """Store the roles, the reward sources and the prompts' token ids.

        Args:
            roles: Policy, reference and critic.
            rewards: Reward sources.
            prompts: Token ids per prompt.
            settings: Batch sizes and seed.
            processes: Processes of the run.
            pass_size: Episodes per scoring pass; None: `forward_batch_size`.
            engine: Program that samples; None: transformers, all episodes at once.
        """
        self.roles = roles
        self.rewards = rewards
        self.prompts = prompts
        self.settings = settings
        self.processes = processes
        self.pass_size = pass_size or PassSize(settings.forward_batch_size)
        self.engine = engine or TransformersEngine(roles, PassSize(settings.sampled_at_once))

    @torch.no_grad()
    def sample(self, rows: Sequence[int], rollout: int) -> Sampled:
        """Sample this process's share of responses.

        Args:
            rows: Prompt index per episode, over all processes.
            rollout: Rollout number; with seed and episode number it determines the sample.
        """
        roles = self.roles
        prompts = [self.prompts[row] for row in self.processes.share(rows)]
        episodes = self.processes.share(range(len(rows)))
        seeds = [(self.settings.seed, rollout, episode) for episode in episodes]

        responses = self.engine.sample(
            prompts, seeds, lambda done: activity.publish("generating", done, len(prompts))
        )
        batch = Sequences.from_lists(prompts, responses.ids, roles.pad_token_id, roles.device)
        of_engine = responses.log_probs
        return Sampled(batch, None if of_engine is None else padded(of_engine, batch))

    @torch.no_grad()
    def score(self, local: Sampled, rows: Sequence[int]) -> Episodes:
        """Run every role and reward source on this process's share; gather all processes' episodes.

        Args:
            local: From `sample`.
            rows: As in `sample`.

        Raises:
            DivergedError: A role returned NaN or an infinite number, or the engine's
                log-probabilities differ from the policy's.
        """
        share = self.processes.share(rows)
        local_outputs = self.pass_size.run(
            lambda size: score_rollout(
                *(self.roles, self.rewards, local, share),
                replace(self.settings, forward_batch_size=size),
            )
        )
        batch, outputs = self._gather(local.sequences, local_outputs, rows)
        _require_finite(outputs)
        of_engine = None if local.engine_log_probs is None else outputs.engine_log_probs
        if of_engine is not None:
            bound = self.settings.max_mismatch
            require_agreement(outputs.log_probs, of_engine, batch.mask, bound)
        ended = torch.tensor([self.roles.ended(ids) for ids in batch.response_lists()])
        source_scores = outputs.source_scores.T
        return Episodes(
            sequences=batch,
            rows=rows,
            ended=ended.to(batch.ids.device),
            log_probs=outputs.log_probs,
            engine_log_probs=of_engine,
            reference_log_probs=outputs.reference_log_probs,
            entropy=outputs.entropy,
            values=outputs.values if self.settings.has_critic else None,
            model_scores=self.rewards.combine(source_scores),
            source_metrics=self.rewards.metrics(source_scores),
        )

    def _gather(
        self, local: Sequences, outputs: _Scored, rows: Sequence[int]
    ) -> tuple[Sequences, _Scored]:
        """Return the episodes and role outputs of all processes."""
        processes = self.processes
        if processes.count == 1:
            return local, outputs
        batch = Sequences.from_lists(
            [self.prompts[row] for row in rows],
            processes.gather_items(local.response_lists()),
            self.roles.pad_token_id,
            self.roles.device,
        )
        missing = batch.response_width - local.response_width
        padded = {
            name: tensor if name == "source_scores" else pad(tensor, (0, missing))
            for name, tensor in outputs._asdict().items()
        }
        return batch, _Scored(**{name: processes.gather(part) for name, part in padded.items()})


def _require_finite(outputs: _Scored) -> None:
    for name, tensor in outputs._asdict().items():
        if not torch.isfinite(tensor).all():
            raise DivergedError(
                f"{name.replace('_', ' ')} of a rollout are not finite numbers",
                hint="Lower ppo.learning_rate or raise ppo.beta; restart from the SFT checkpoint.",
            )


class RowStream:
    """Endless stream of row indices, in a new order per pass.

    It wraps around, so that a data set smaller than a batch neither hangs nor trains zero steps
    (known bug 12 in docs/explanation/ppo.md). The order depends on seed and place only, so a run
    resumes exactly.

    Attributes:
        place: Rows consumed.
    """

    def __init__(self, size: int, seed: int, place: int = 0) -> None:
        """Start at `place` of a stream over `size` rows, at least 1."""
        self.size = size
        self.seed = seed
        self.place = place

    def _order(self, number: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        return torch.randperm(self.size, generator=generator)

    def take(self, count: int) -> list[int]:
        """Return the next `count` rows."""
        batch: list[int] = []
        while len(batch) < count:
            number, start = divmod(self.place, self.size)
            rows = self._order(number)[start : start + count - len(batch)].tolist()
            batch += rows
            self.place += len(rows)
        return batch
