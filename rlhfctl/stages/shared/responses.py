"""Responses of a policy to held-out prompts, with their scores, KL, entropy and length."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from rlhfctl.evaluation.policies import Responses
from rlhfctl.maths.kl import k1
from rlhfctl.maths.sequences import Sequences
from rlhfctl.ppo.rollout import objective_scores
from rlhfctl.stages.shared.gold import gold_rewards
from rlhfctl.stages.shared.response_batches import ResponseBatch, ResponseBatches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from rlhfctl.models.role_models import Role
    from rlhfctl.models.roles import Roles
    from rlhfctl.ppo.rewards import Rewards, RewardSource
    from rlhfctl.stages.shared.stage_context import StageContext


@dataclass(frozen=True)
class PromptSet:
    """Held-out prompts with the roles and reward sources that evaluate them.

    Attributes:
        context: Recipe, tokenizer and formatting.
        roles: Models that respond, with their sampling settings.
        rewards: Reward sources; None: responses are not scored.
        prompts: [prompts] as in the data, text or messages.
        prompt_ids: [prompts] token ids.
        batch_size: Prompts per batch; affects memory, not responses.
        judge: The held-out reward model, if any.
        observe: Called with each batch of responses and its scores [sources, batch].
    """

    context: StageContext
    roles: Roles
    rewards: Rewards | None
    prompts: Sequence[Any]
    prompt_ids: Sequence[Sequence[int]]
    batch_size: int
    judge: RewardSource | None = None
    observe: Callable[[Sequences, Tensor], None] | None = None


def generate_responses(
    prompt_set: PromptSet,
    role: Role,
    rows: Sequence[int] | None = None,
    on_batch: Callable[[int, float], None] | None = None,
    saved: ResponseBatches | None = None,
) -> Responses:
    """Sample one response per prompt, with the same random numbers for every policy.

    Args:
        prompt_set: Prompts, roles and reward sources.
        role: `policy`, or `reference` for the SFT policy.
        rows: Indices of the prompts; None: all.
        on_batch: Called after each batch with the number of responses so far and their mean KL.
        saved: Batches of an interrupted call, which are taken from there, and where new ones are
            saved.
    """
    context, rewards = prompt_set.context, prompt_set.rewards
    row_indices = range(len(prompt_set.prompts)) if rows is None else rows
    texts: list[str] = []
    measurements: defaultdict[str, list[float]] = defaultdict(list)
    for index, start in enumerate(range(0, len(row_indices), prompt_set.batch_size)):
        batch = saved.get(index) if saved is not None else None
        if batch is None:
            part = row_indices[start : start + prompt_set.batch_size]
            batch = _measured_batch(prompt_set, role, part)
            if saved is not None:
                saved.append(batch)
        texts += batch.texts
        for name, values in batch.measurements.items():
            measurements[name] += values
        if on_batch is not None:
            on_batch(len(texts), sum(measurements["kl"]) / len(texts))
    section = context.recipe.ppo
    # Running statistics are known during PPO only.
    if rewards is not None and section.score_normalization == "sft":
        scores, lengths = (torch.tensor(measurements[name]) for name in ("proxy", "lengths"))
        ended = torch.tensor(measurements["ended"], dtype=torch.bool)
        objective = objective_scores(scores, ended, lengths, section)
        measurements["objective_score"] = objective.tolist()
    gold = gold_rewards(context.recipe, [prompt_set.prompts[row] for row in row_indices], texts)
    return Responses(texts=texts, gold=gold, **measurements)


def _measured_batch(prompt_set: PromptSet, role: Role, rows: Sequence[int]) -> ResponseBatch:
    roles, rewards = prompt_set.roles, prompt_set.rewards
    sequences = _respond(prompt_set, role, rows)
    measurements = _divergence(roles, role, sequences)
    if rewards is not None:
        scores = rewards.scores_per_source(sequences, rows)
        measurements["proxy"] = rewards.combine(scores).tolist()
        if prompt_set.observe is not None:
            prompt_set.observe(sequences, scores)
        if len(scores) > 1:
            measurements["disagreement"] = scores.std(dim=0, correction=1).tolist()
    if prompt_set.judge is not None:
        measurements["held_out_rm"] = prompt_set.judge.scores(sequences, rows).tolist()
    responses = sequences.response_lists()
    measurements["lengths"] = [len(response) for response in responses]
    measurements["ended"] = [roles.ended(response) for response in responses]
    return ResponseBatch(
        [prompt_set.context.formatter.decode(response) for response in responses], measurements
    )


def _respond(prompt_set: PromptSet, role: Role, rows: Sequence[int]) -> Sequences:
    roles = prompt_set.roles
    ids = [prompt_set.prompt_ids[row] for row in rows]
    seeds = [(prompt_set.context.recipe.seed, row) for row in rows]
    responses = roles.generate(ids, seeds, role)
    return Sequences.from_lists(ids, responses, roles.pad_token_id, roles.device)


def _divergence(roles: Roles, role: Role, sequences: Sequences) -> dict[str, list[float]]:
    """Return k1 per response and mean entropy per token; the reference's own KL is 0."""
    if role == "reference":
        own = roles.log_probs("reference", sequences, entropy=True).entropy
        return {"kl": [0.0] * len(sequences), "entropy": _token_means(own, sequences)}
    policy = roles.log_probs("policy", sequences)
    reference = roles.log_probs("reference", sequences).log_probs
    return {
        "kl": k1(policy.log_probs, reference).sum(dim=1).tolist(),
        "entropy": _token_means(policy.entropy, sequences),
    }


def _token_means(values: Tensor, sequences: Sequences) -> list[float]:
    """Return the mean per response of values [B, R], which are 0 where masked."""
    means: list[float] = (values.sum(dim=1) / sequences.response_lengths).tolist()
    return means
