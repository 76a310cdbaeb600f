"""Episodes as they come: responses, what every role says of them, rewards, advantages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from rlhfctl.errors import DivergedError
from rlhfctl.maths.advantages import generalized_advantages, shape_rewards
from rlhfctl.maths.kl import k1, k3
from rlhfctl.maths.masking import masked_mean, whiten
from rlhfctl.maths.sequences import Sequences
from rlhfctl.maths.statistics import RunningMoments, explained_variance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from rlhfctl.ppo.settings import Actors, PPOSettings


@dataclass(frozen=True)
class Rollout:
    """B episodes under the policy that collected them; [B, R] tensors are 0 where masked.

    Attributes:
        sequences: Prompts and responses.
        ended: [B], whether a response ended by a stop token.
        log_probs: [B, R] of the policy, by the training forward pass.
        reference_log_probs: [B, R].
        entropy: [B, R] of the policy, in nats.
        values: [B, R] of the critic.
        model_scores: [B], the reward model's normalised scores.
        scores: [B], after clipping and with those of unended responses replaced.
        rewards: [B, R], before any whitening.
        advantages: [B, R], whitened if so set.
        returns: [B, R], from advantages before whitening.
    """

    sequences: Sequences
    ended: Tensor
    log_probs: Tensor
    reference_log_probs: Tensor
    entropy: Tensor
    values: Tensor
    model_scores: Tensor
    scores: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor

    @property
    def mask(self) -> Tensor:
        """[B, R], True on response tokens."""
        return self.sequences.mask

    @property
    def kl(self) -> Tensor:
        """[B], k1 summed over each response, in nats."""
        return k1(self.log_probs, self.reference_log_probs).sum(dim=1)

    def figures(self) -> dict[str, float]:
        """Return what practitioners watch of a rollout; `docs/metrics.md` defines each."""
        lengths = self.sequences.response_lengths.float()
        per_token_k3 = k3(self.log_probs, self.reference_log_probs)
        return {
            "score": float(self.model_scores.mean()),
            "reward": float(self.rewards.sum(dim=1).mean()),
            "kl": float(self.kl.mean()),
            "kl_k3": float(per_token_k3.sum(dim=1).mean()),
            "entropy": float(masked_mean(self.entropy, self.mask)),
            "response_length": float(lengths.mean()),
            "eos_share": float(self.ended.float().mean()),
            "explained_variance": explained_variance(self.values, self.returns, self.mask),
        }


class PromptStream:
    """Prompts in a fresh order each pass, wrapping where a batch is larger than what is left.

    The order is a function of seed and place alone, so that a resumed run goes on as it would have.
    """

    def __init__(self, prompts: Sequence[Sequence[int]], seed: int, place: int = 0) -> None:
        self.prompts = prompts
        self.seed = seed
        self.place = place

    def _order(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        return torch.randperm(len(self.prompts), generator=generator)

    def take(self, count: int) -> list[Sequence[int]]:
        """Return the next `count` prompts."""
        taken: list[Sequence[int]] = []
        while len(taken) < count:
            number, start = divmod(self.place, len(self.prompts))
            rows = self._order(number)[start : start + count - len(taken)].tolist()
            taken += [self.prompts[row] for row in rows]
            self.place += len(rows)
        return taken


class _Judged(NamedTuple):
    log_probs: Tensor
    reference_log_probs: Tensor
    entropy: Tensor
    values: Tensor
    model_scores: Tensor


def judge(actors: Actors, batch: Sequences, size: int) -> _Judged:
    """Ask every role about a batch, `size` episodes a pass.

    Args:
        actors: The roles.
        batch: B episodes.
        size: Episodes a forward pass.
    """
    shape = batch.mask.shape
    device = batch.ids.device
    parts = _Judged(
        log_probs=torch.zeros(shape, device=device),
        reference_log_probs=torch.zeros(shape, device=device),
        entropy=torch.zeros(shape, device=device),
        values=torch.zeros(shape, device=device),
        model_scores=torch.zeros(shape[0], device=device),
    )
    for rows, part in batch.in_chunks(size):
        width = part.response_width
        policy = actors.log_probs("policy", part)
        parts.log_probs[rows, :width] = policy.log_probs
        parts.entropy[rows, :width] = policy.entropy
        parts.reference_log_probs[rows, :width] = actors.log_probs("reference", part).log_probs
        parts.values[rows, :width] = actors.values(part)
        parts.model_scores[rows] = actors.scores(part)
    return parts


def final_scores(
    model_scores: Tensor, ended: Tensor, settings: PPOSettings, moments: RunningMoments
) -> tuple[Tensor, RunningMoments]:
    """Return the scores [B] that rewards are made of, and the running moments with them added.

    Normalised by running statistics if so set, clipped, and replaced where the response did not
    end (Ziegler et al. 2019): a replaced score enters no statistics.

    Args:
        model_scores: [B].
        ended: [B].
        settings: Normalisation, clip and the score of unended responses.
        moments: Of all scores so far.
    """
    scores = model_scores
    counted = ended if settings.missing_eos_score is not None else torch.ones_like(ended)
    if settings.score_normalization == "running":
        moments = moments.update(scores[counted])
        scores = (scores - moments.mean) / moments.deviation
    if settings.score_clip is not None:
        scores = scores.clamp(-settings.score_clip, settings.score_clip)
    if settings.missing_eos_score is not None:
        scores = torch.where(ended, scores, settings.missing_eos_score)
    return scores, moments


@torch.no_grad()
def collect(
    actors: Actors,
    prompts: Sequence[Sequence[int]],
    settings: PPOSettings,
    beta: float,
    moments: RunningMoments,
) -> tuple[Rollout, RunningMoments]:
    """Answer the prompts and work out rewards, advantages and returns.

    1. Sample responses. 2. Ask every role. 3. Make scores final. 4. Rewards: -beta * KL a token,
    the score at the end. 5. Advantages and returns. 6. Whiten.

    Args:
        actors: The roles.
        prompts: Token ids.
        settings: The numbers.
        beta: The KL coefficient of this rollout.
        moments: Of all scores so far.

    Raises:
        DivergedError: A role gave NaN or an infinite number.
    """
    responses = actors.generate(prompts)
    batch = Sequences.from_lists(prompts, responses, actors.pad_token_id, actors.device)
    ended = torch.tensor([actors.ended(r) for r in responses], device=batch.ids.device)
    judged = judge(actors, batch, settings.forward_batch_size)
    for name, tensor in judged._asdict().items():
        if not torch.isfinite(tensor).all():
            raise DivergedError(
                f"{name.replace('_', ' ')} of a rollout are not finite numbers",
                hint="Lower ppo.learning_rate or raise ppo.beta; start again from the SFT stage's "
                "checkpoint.",
            )
    scores, moments = final_scores(judged.model_scores, ended, settings, moments)
    mask = batch.mask
    kl = k1(judged.log_probs, judged.reference_log_probs)
    rewards = shape_rewards(scores, kl, mask, beta)
    used = whiten(rewards, mask, shift_mean=False) if settings.whiten_rewards else rewards
    advantages, returns = generalized_advantages(
        used, judged.values, mask, settings.gamma, settings.gae_lambda
    )
    if settings.whiten_advantages:
        advantages = whiten(advantages, mask)
    rollout = Rollout(
        sequences=batch,
        ended=ended,
        scores=scores,
        rewards=rewards,
        advantages=advantages,
        returns=returns,
        **judged._asdict(),
    )
    return rollout, moments
