"""Episodes as they come: responses, what every role says of them, rewards, advantages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import pad

from rlhfctl.errors import DivergedError
from rlhfctl.maths.advantages import (
    Advantages,
    batch_mean_advantages,
    generalized_advantages,
    shape_rewards,
)
from rlhfctl.maths.kl import k1, k3
from rlhfctl.maths.masking import masked_mean, whiten
from rlhfctl.maths.sequences import Sequences
from rlhfctl.maths.statistics import explained_variance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from rlhfctl.maths.statistics import RunningMoments
    from rlhfctl.ppo.processes import Processes
    from rlhfctl.ppo.rewards import Rewards
    from rlhfctl.ppo.settings import PPOSettings, Roles


@dataclass(frozen=True)
class Rollout:
    """B episodes under the policy that collected them; [B, R] tensors are 0 where masked.

    Attributes:
        sequences: Prompts and responses.
        rows: Which prompt of the data each episode answers.
        ended: [B], whether a response ended by a stop token.
        log_probs: [B, R] of the policy, by the training forward pass.
        reference_log_probs: [B, R].
        entropy: [B, R] of the policy, in nats.
        values: [B, R] of the critic; None without one.
        model_scores: [B], of the reward model, or of several sources by their rule.
        scores: [B], after clipping and with those of unended responses replaced.
        rewards: [B, R], before any whitening.
        advantages: [B, R], whitened if so set.
        returns: [B, R], from advantages before whitening.
        beta: The KL coefficient.
        source_metrics: Of the single sources of scores, where there are several.
    """

    sequences: Sequences
    rows: Sequence[int]
    ended: Tensor
    log_probs: Tensor
    reference_log_probs: Tensor
    entropy: Tensor
    values: Tensor | None
    model_scores: Tensor
    scores: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor
    beta: float
    source_metrics: dict[str, float]

    @property
    def mask(self) -> Tensor:
        """[B, R], True on response tokens."""
        return self.sequences.mask

    @property
    def kl(self) -> Tensor:
        """[B], k1 summed over each response, in nats."""
        return k1(self.log_probs, self.reference_log_probs).sum(dim=1)

    def metrics(self) -> dict[str, float]:
        """Return what practitioners watch of a rollout; `docs/reference/metrics.md` defines each."""
        lengths = self.sequences.response_lengths.float()
        per_token_k3 = k3(self.log_probs, self.reference_log_probs)
        metrics = {
            "score": float(self.model_scores.mean()),
            "reward": float(self.rewards.sum(dim=1).mean()),
            "kl": float(self.kl.mean()),
            "kl_k3": float(per_token_k3.sum(dim=1).mean()),
            "entropy": float(masked_mean(self.entropy, self.mask)),
            "response_length": float(lengths.mean()),
            "eos_share": float(self.ended.float().mean()),
        }
        if self.values is not None:
            metrics["explained_variance"] = explained_variance(self.values, self.returns, self.mask)
        return metrics | self.source_metrics


class _Scored(NamedTuple):
    """Of the episodes that a process collected; [b, R], but `source_scores`: [b, S]."""

    log_probs: Tensor
    reference_log_probs: Tensor
    entropy: Tensor
    values: Tensor
    source_scores: Tensor


def score_rollout(
    roles: Roles, rewards: Rewards, batch: Sequences, rows: Sequence[int], settings: PPOSettings
) -> _Scored:
    """Ask every role about a batch, `forward_batch_size` episodes a pass.

    Args:
        roles: The roles.
        rewards: The givers of scores.
        batch: B episodes.
        rows: Which prompt of the data each of them answers.
        settings: Whether there is a critic, and the size of a pass.
    """
    shape, device = batch.mask.shape, batch.ids.device
    parts = _Scored(
        log_probs=torch.zeros(shape, device=device),
        reference_log_probs=torch.zeros(shape, device=device),
        entropy=torch.zeros(shape, device=device),
        values=torch.zeros(shape, device=device),
        source_scores=torch.zeros(shape[0], len(rewards.sources), device=device),
    )
    for at, part in batch.in_chunks(settings.forward_batch_size):
        width = part.response_width
        policy = roles.log_probs("policy", part)
        parts.log_probs[at, :width] = policy.log_probs
        parts.entropy[at, :width] = policy.entropy
        parts.reference_log_probs[at, :width] = roles.log_probs("reference", part).log_probs
        if settings.has_critic:
            parts.values[at, :width] = roles.values(part)
        parts.source_scores[at] = rewards.each(part, [rows[i] for i in at.tolist()]).T
    return parts


def final_scores(
    model_scores: Tensor,
    ended: Tensor,
    lengths: Tensor,
    settings: PPOSettings,
    moments: RunningMoments,
) -> tuple[Tensor, RunningMoments]:
    """Return the scores [B] that rewards are made of, and the running moments with them added.

    Normalised by running statistics if so set, clipped, and replaced where the response did not
    end (Ziegler et al. 2019) or is too short: a replaced score enters no statistics.

    Args:
        model_scores: [B].
        ended: [B].
        lengths: [B], of the responses in tokens.
        settings: Normalisation, clip and the score of such responses.
        moments: Of all scores so far.
    """
    scores = model_scores
    proper = ended & (lengths >= (settings.min_response_length or 0))
    counted = proper if settings.missing_eos_score is not None else torch.ones_like(ended)
    if settings.score_normalization == "running":
        moments = moments.update(scores[counted])
        scores = (scores - moments.mean) / moments.deviation
    if settings.score_clip is not None:
        scores = scores.clamp(-settings.score_clip, settings.score_clip)
    if settings.missing_eos_score is not None:
        scores = torch.where(proper, scores, settings.missing_eos_score)
    return scores, moments


def advantages_of(
    rewards: Tensor, values: Tensor, mask: Tensor, settings: PPOSettings
) -> Advantages:
    """Return advantages, whitened if so set, and returns from before that; all [B, R].

    Args:
        rewards: [B, R].
        values: [B, R] of the critic; not read without one.
        mask: [B, R].
        settings: The estimator and what is whitened.
    """
    used = whiten(rewards, mask, shift_mean=False) if settings.whiten_rewards else rewards
    if settings.has_critic:
        found = generalized_advantages(used, values, mask, settings.gamma, settings.gae_lambda)
    else:
        found = batch_mean_advantages(used, mask, settings.gamma)
    if settings.whiten_advantages:
        found = found._replace(advantages=whiten(found.advantages, mask))
    return found


class Collector:
    """Collects rollouts: every process its share, then all of them the whole."""

    def __init__(
        self,
        roles: Roles,
        rewards: Rewards,
        prompts: Sequence[Sequence[int]],
        settings: PPOSettings,
        processes: Processes,
    ) -> None:
        """Take the roles, the givers of scores and the prompts' token ids."""
        self.roles = roles
        self.rewards = rewards
        self.prompts = prompts
        self.settings = settings
        self.processes = processes

    @torch.no_grad()
    def collect(
        self, rows: Sequence[int], number: int, beta: float, moments: RunningMoments
    ) -> tuple[Rollout, RunningMoments]:
        """Answer prompts and work out rewards, advantages and returns.

        1. Sample responses and ask every role, each process on its share. 2. Gather. 3. Make
        scores final. 4. Rewards: the score at the end, and -beta * KL a token if the penalty
        stands there. 5. Advantages and returns, whitened over the whole.

        Args:
            rows: The prompts, of all processes together.
            number: Of the rollout: with the seed and an episode's place, what its sampling
                depends on.
            beta: The KL coefficient of this rollout.
            moments: Of all scores so far.

        Raises:
            DivergedError: A role gave NaN or an infinite number.
        """
        settings = self.settings
        batch, scored = self._gathered(rows, number)
        self._check(scored)
        ended = torch.tensor([self.roles.ended(r) for r in batch.response_lists()])
        ended = ended.to(batch.ids.device)
        each = scored.source_scores.T
        model_scores = self.rewards.combine(each)
        scores, moments = final_scores(
            model_scores, ended, batch.response_lengths, settings, moments
        )
        penalty = beta if settings.kl_penalty == "reward" else 0.0
        kl = k1(scored.log_probs, scored.reference_log_probs)
        rewards = shape_rewards(scores, kl, batch.mask, penalty)
        found = advantages_of(rewards, scored.values, batch.mask, settings)
        rollout = Rollout(
            sequences=batch,
            rows=rows,
            ended=ended,
            log_probs=scored.log_probs,
            reference_log_probs=scored.reference_log_probs,
            entropy=scored.entropy,
            values=scored.values if settings.has_critic else None,
            model_scores=model_scores,
            scores=scores,
            rewards=rewards,
            advantages=found.advantages,
            returns=found.returns,
            beta=beta,
            source_metrics=self.rewards.metrics(each),
        )
        return rollout, moments

    def _gathered(self, rows: Sequence[int], number: int) -> tuple[Sequences, _Scored]:
        """Return all processes' episodes and what the roles say of them."""
        roles, processes = self.roles, self.processes
        mine = processes.share(rows)
        prompts = [self.prompts[row] for row in mine]
        episodes = processes.share(range(len(rows)))
        seeds = [(self.settings.seed, number, episode) for episode in episodes]
        responses = roles.generate(prompts, seeds)
        local = Sequences.from_lists(prompts, responses, roles.pad_token_id, roles.device)
        scored = score_rollout(roles, self.rewards, local, mine, self.settings)
        if processes.count == 1:
            return local, scored
        batch = Sequences.from_lists(
            [self.prompts[row] for row in rows],
            processes.gather_items(responses),
            roles.pad_token_id,
            roles.device,
        )
        missing = batch.response_width - local.response_width
        wide = {
            name: tensor if name == "source_scores" else pad(tensor, (0, missing))
            for name, tensor in scored._asdict().items()
        }
        return batch, _Scored(**{name: processes.gather(part) for name, part in wide.items()})

    @staticmethod
    def _check(scored: _Scored) -> None:
        for name, tensor in scored._asdict().items():
            if not torch.isfinite(tensor).all():
                raise DivergedError(
                    f"{name.replace('_', ' ')} of a rollout are not finite numbers",
                    hint="Lower ppo.learning_rate or raise ppo.beta; start again from the SFT "
                    "stage's checkpoint.",
                )
