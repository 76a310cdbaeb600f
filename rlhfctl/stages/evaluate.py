"""SFT and PPO on trial: both answer the same held-out prompts with the same seeds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rlhfctl.data.formatting import encode_prompts
from rlhfctl.data.sources import judging_prompts
from rlhfctl.evaluation.trial import Responses, judge, sample_rows
from rlhfctl.maths.kl import k1
from rlhfctl.maths.sequences import Sequences
from rlhfctl.run.manifest import StageOutcome
from rlhfctl.stages.judging import Judging
from rlhfctl.stages.reward_sources import more_reward_models, open_rewards
from rlhfctl.stages.session import Session, open_roles, open_session
from rlhfctl.stages.truth import gold_rewards

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rlhfctl.models.networks import Role
    from rlhfctl.models.roles import Roles
    from rlhfctl.ppo.rewards import Rewards
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor


# Each adds figures under names of its own to those of `judge`.
_PARTS: tuple[Callable[[Judging], dict[str, Any]], ...] = ()


def run(recipe: Recipe, inputs: Mapping[str, Path], output: Path, monitor: Monitor) -> StageOutcome:
    """Judge whatever exists: SFT alone, or PPO against it, by proxy and where known by gold.

    Args:
        recipe: `evaluation`, `data`, and the sampling and reward sources of `ppo` are read.
        inputs: `sft`; `rm` and `ppo` where they exist.
        output: An empty folder.
        monitor: Hears of every batch.

    Raises:
        DataError: No held-out prompt is left.
        CheckpointError: A checkpoint does not fit.
    """
    session = open_session(recipe)
    encoded = encode_prompts(
        judging_prompts(recipe), session.formatter, recipe.ppo.max_prompt_length
    ).dataset
    encoded = encoded.select(range(min(len(encoded), recipe.evaluation.num_prompts)))
    roles = open_roles(session, inputs, more_reward_models(recipe.ppo))
    # Before there is a reward model, SFT alone is judged without scores.
    known = "rm" in inputs or not recipe.ppo.uses_rm
    rewards = (
        open_rewards(recipe.ppo, roles, session.formatter, encoded["prompt"]) if known else None
    )
    roles.temperature = recipe.evaluation.temperature
    roles.max_new_tokens = recipe.evaluation.max_new_tokens or recipe.ppo.max_new_tokens

    names: dict[str, Role] = {"sft": "reference"}
    if "ppo" in inputs:
        names["ppo"] = "policy"
    monitor.start("eval", len(names) * len(encoded), "responses")
    policies = {
        name: _answers(session, roles, rewards, role, encoded, at * len(encoded), monitor)
        for at, (name, role) in enumerate(names.items())
    }
    monitor.finish()

    figures = judge(policies, recipe.evaluation.ngram, recipe.seed)
    judging = Judging(
        session,
        inputs,
        roles,
        encoded["prompt"],
        [list(ids) for ids in encoded["input_ids"]],
        policies,
        output,
        monitor,
    )
    for part in _PARTS:
        figures |= part(judging)
    prompts = [session.formatter.decode(ids) for ids in encoded["input_ids"]]
    samples = sample_rows(prompts, policies, recipe.evaluation.num_samples)
    (output / "figures.json").write_text(
        json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    lines = [json.dumps(sample, ensure_ascii=False) for sample in samples]
    (output / "samples.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return StageOutcome(figures)


def _answers(
    session: Session,
    roles: Roles,
    rewards: Rewards | None,
    role: Role,
    encoded: Any,
    done: int,
    monitor: Monitor,
) -> Responses:
    """Answer every prompt once; a prompt has the same random numbers for every policy."""
    recipe = session.recipe
    prompts = [list(ids) for ids in encoded["input_ids"]]
    size = recipe.evaluation.batch_size
    texts: list[str] = []
    kl: list[float] = []
    lengths: list[int] = []
    ended: list[bool] = []
    proxy: list[float] = []
    for start in range(0, len(prompts), size):
        batch = prompts[start : start + size]
        seeds = [(recipe.seed, start + at) for at in range(len(batch))]
        responses = roles.generate(batch, seeds, role)
        sequences = Sequences.from_lists(batch, responses, roles.pad_token_id, roles.device)
        kl += _kl(roles, role, sequences)
        if rewards is not None:
            rows = range(start, start + len(batch))
            proxy += rewards.combine(rewards.each(sequences, rows)).tolist()
        texts += [session.formatter.decode(response) for response in responses]
        lengths += map(len, responses)
        ended += map(roles.ended, responses)
        monitor.step(done + len(texts), {"kl": sum(kl) / len(kl)})
    return Responses(
        texts=texts,
        kl=kl,
        lengths=lengths,
        ended=ended,
        proxy=proxy or None,
        gold=gold_rewards(recipe, encoded["prompt"], texts),
    )


def _kl(roles: Roles, role: Role, sequences: Sequences) -> list[float]:
    """Return k1 a response in nats; a policy's against the reference, the reference's own is 0."""
    if role == "reference":
        return [0.0] * len(sequences)
    policy = roles.log_probs("policy", sequences).log_probs
    reference = roles.log_probs("reference", sequences).log_probs
    values: list[float] = k1(policy, reference).sum(dim=1).tolist()
    return values
