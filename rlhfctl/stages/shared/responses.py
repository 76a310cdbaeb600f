"""A policy's answers to held-out prompts, each with a seed of its own, and what is measured of them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.evaluation.policies import Responses
from rlhfctl.maths.kl import k1
from rlhfctl.maths.sequences import Sequences
from rlhfctl.stages.shared.gold import gold_rewards

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from rlhfctl.models.role_models import Role
    from rlhfctl.models.roles import Roles
    from rlhfctl.ppo.rewards import Rewards
    from rlhfctl.stages.shared.stage_context import StageContext


@dataclass(frozen=True)
class PromptSet:
    """Held-out prompts, and who answers and scores.

    Attributes:
        session: Recipe, tokenizer and formatting.
        roles: They answer at their own temperature and length limit.
        rewards: The sources of scores; None: nobody scores.
        prompts: [prompts] as they stand in the data, text or messages.
        prompt_ids: [prompts] their token ids.
        batch_size: Prompts answered at a time; changes memory, never an answer.
        judge: The held-out reward model's number among the roles', where there is one.
    """

    session: StageContext
    roles: Roles
    rewards: Rewards | None
    prompts: Sequence[Any]
    prompt_ids: Sequence[Sequence[int]]
    batch_size: int
    judge: int | None = None


def generate_responses(
    questions: PromptSet,
    role: Role,
    rows: Sequence[int] | None = None,
    hear: Callable[[int, float], None] | None = None,
) -> Responses:
    """Answer prompts once; a prompt has the same random numbers for every policy and every time.

    Args:
        questions: The prompts.
        role: `policy`, or `reference` for the SFT policy.
        rows: Which of the prompts; None: all.
        hear: Called after each batch with the answers so far and their mean KL.
    """
    session, roles, rewards = questions.session, questions.roles, questions.rewards
    asked = range(len(questions.prompts)) if rows is None else rows
    texts: list[str] = []
    found: defaultdict[str, list[float]] = defaultdict(list)
    for start in range(0, len(asked), questions.batch_size):
        part = asked[start : start + questions.batch_size]
        sequences = _respond(questions, role, part)
        for name, values in _divergence(roles, role, sequences).items():
            found[name] += values
        if rewards is not None:
            each = rewards.each(sequences, part)
            found["proxy"] += rewards.combine(each).tolist()
            if len(each) > 1:
                found["disagreement"] += each.std(dim=0, correction=1).tolist()
        if questions.judge is not None:
            found["held_out_rm"] += roles.scores(sequences, questions.judge).tolist()
        responses = sequences.response_lists()
        texts += [session.formatter.decode(response) for response in responses]
        found["lengths"] += map(len, responses)
        found["ended"] += map(roles.ended, responses)
        if hear is not None:
            hear(len(texts), sum(found["kl"]) / len(texts))
    gold = gold_rewards(session.recipe, [questions.prompts[row] for row in asked], texts)
    return Responses(texts=texts, gold=gold, **found)


def _respond(questions: PromptSet, role: Role, rows: Sequence[int]) -> Sequences:
    roles = questions.roles
    ids = [questions.prompt_ids[row] for row in rows]
    seeds = [(questions.session.recipe.seed, row) for row in rows]
    responses = roles.generate(ids, seeds, role)
    return Sequences.from_lists(ids, responses, roles.pad_token_id, roles.device)


def _divergence(roles: Roles, role: Role, sequences: Sequences) -> dict[str, list[float]]:
    """Return k1 a response and mean entropy a token; the reference's own KL is 0."""
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
    """Return of each response the mean of [B, R] values, which are 0 where masked."""
    means: list[float] = (values.sum(dim=1) / sequences.response_lengths).tolist()
    return means
