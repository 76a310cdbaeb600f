"""Alignment tax of an evaluation: base, SFT and PPO on tasks of the base model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from rlhfctl.data.formatting import encode_demonstrations
from rlhfctl.data.row_counts import bad_limit
from rlhfctl.data.sources import never_trained_on
from rlhfctl.errors import DataError, RecipeError
from rlhfctl.evaluation.tax import compare
from rlhfctl.maths.sequences import Sequences
from rlhfctl.models.role_models import BASE
from rlhfctl.results.evaluation import Tax, TaxTask
from rlhfctl.stages.evaluation.lm_eval_harness import harness_tasks
from rlhfctl.world.closed import closed_questions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rlhfctl.models.role_models import Role
    from rlhfctl.stages.evaluation.context import EvalContext

Pair = tuple[list[int], list[int]]


def evaluate_tax(context: EvalContext) -> Tax | None:
    """Return the alignment tax on each task; None without tasks.

    `demonstrations`: mean negative log-likelihood of held-out demonstrations, nats per
    response token. `closed_questions`, for prompts of the embedded world: the share of questions
    whose right answer is more likely than every wrong one. Without adapters the base is not in
    memory and is left out. The recipe's lm-evaluation-harness tasks follow.

    Raises:
        EnvironmentFault: The harness is not installed, or a task's data is not available.
        RecipeError: A task does not exist.
    """
    built_in = {"demonstrations": _demonstrations, "closed_questions": _closed_questions}
    tasks: dict[str, TaxTask] = {}
    for name, task in built_in.items():
        try:
            result = task(context)
        except (DataError, RecipeError) as error:
            # Checkpoints can be evaluated without the demonstrations they were trained on.
            context.monitor.warn(f"{name} left out of the alignment tax: {error}")
        else:
            tasks |= {name: result} if result else {}
    tasks |= harness_tasks(context, tax_roles(context))
    return Tax(tasks) if tasks else None


def tax_roles(context: EvalContext) -> dict[str, Role]:
    """Return the available roles among base, sft and ppo, by metric name."""
    base: dict[str, Role] = {"base": BASE} if context.roles.models.has_base else {}
    sft: dict[str, Role] = {"sft": "reference"}
    return base | sft | ({"ppo": "policy"} if "ppo" in context.policies else {})


def _demonstrations(context: EvalContext) -> TaxTask | None:
    recipe, session = context.recipe, context.session
    limit = recipe.evaluation.tax_demonstrations
    if not limit:
        return None
    rows = context.demonstrations.held_out
    rows = rows.select(range(min(limit, len(rows))))
    encoded = encode_demonstrations(
        rows, session.formatter_for("demonstrations"), recipe.sft.max_length, bad_limit(recipe.data)
    ).dataset
    pairs = [
        _split(list(ids), list(mask))
        for ids, mask in zip(encoded["input_ids"], encoded["completion_mask"], strict=True)
    ]
    lengths = np.array([len(response) for _, response in pairs], dtype=np.float64)
    return compare(
        {
            name: -_likelihoods(context, role, pairs) / lengths
            for name, role in tax_roles(context).items()
        },
        recipe.seed,
        metric="negative log-likelihood, nats per token",
        higher_is_better=False,
        weights=lengths,
    )


def _split(ids: list[int], mask: list[int]) -> Pair:
    """Return prompt and response; an empty prompt takes the first token of the response."""
    start = max(1, mask.index(1))
    return ids[:start], ids[start:]


def _closed_questions(context: EvalContext) -> TaxTask | None:
    recipe = context.recipe
    number = recipe.evaluation.tax_questions
    if not number or not recipe.data.prompts.is_embedded:
        return None

    def rows(text: str, role: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    closed = closed_questions(
        number, recipe.seed, lambda prompt: never_trained_on(recipe, rows(prompt, "user"))
    )
    if not closed:
        return None
    pairs = list(
        context.session.formatter.pairs(
            [
                (rows(question.prompt, "user"), rows(response, "assistant"))
                for question in closed
                for response in question.responses
            ]
        )
    )
    ends = np.cumsum([len(question.responses) for question in closed])[:-1]

    def right(role: Role) -> list[float]:
        likelihoods = np.split(_likelihoods(context, role, pairs), ends)
        return [float(scores[0] > scores[1:].max()) for scores in likelihoods]

    return compare(
        {name: right(role) for name, role in tax_roles(context).items()},
        recipe.seed,
        metric="accuracy",
        higher_is_better=True,
    )


def _likelihoods(context: EvalContext, role: Role, pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """Return [pairs] a role's log-likelihood of each response, in nats, at temperature 1."""
    roles = context.roles
    prompts, responses = zip(*pairs, strict=True)
    batch = Sequences.from_lists(prompts, responses, roles.pad_token_id, roles.device)
    log_likelihoods = torch.zeros(len(pairs), dtype=torch.float64)
    for rows, part in batch.in_chunks(context.recipe.evaluation.batch_size):
        log_probs = roles.log_probs(role, part, temperature=1.0, entropy=False).log_probs
        log_likelihoods[rows.cpu()] = log_probs.double().sum(dim=1).cpu()
    return log_likelihoods.numpy()
