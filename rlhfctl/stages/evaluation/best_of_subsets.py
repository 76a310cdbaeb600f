"""RewardBench 2: the right response against several wrong ones, and its subset of ties."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.errors import DataError
from rlhfctl.evaluation.subsets import best_of_metrics
from rlhfctl.evaluation.ties import RatedPrompt
from rlhfctl.stages.evaluation.scored_pairs import score_responses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.data.best_of_rows import BestOfRow
    from rlhfctl.results.evaluation import SubsetAccuracies
    from rlhfctl.stages.evaluation.context import EvalContext


def best_of_accuracies(context: EvalContext, rows: Sequence[BestOfRow]) -> SubsetAccuracies:
    """Score every response and return accuracies; rows that are too long are left out.

    Args:
        context: The evaluation, with a reward model.
        rows: Prompts with their responses.

    Raises:
        DataError: No row fits the reward model.
    """
    raw, _ = score_responses(
        context, [(row.prompt, text) for row in rows for text in (*row.right, *row.wrong)]
    )
    scored: list[tuple[BestOfRow, RatedPrompt]] = []
    start = 0
    for row in rows:
        middle, end = start + len(row.right), start + len(row.right) + len(row.wrong)
        if np.isfinite(raw[start:end]).all():
            rated = RatedPrompt(raw[start:middle].tolist(), raw[middle:end].tolist())
            scored.append((row, rated))
        start = end
    limit = context.recipe.reward_model.max_length
    if len(scored) < len(rows):
        context.monitor.warn(
            f"evaluation.reward_bench: {len(rows) - len(scored):,} of {len(rows):,} rows are longer "
            f"than reward_model.max_length ({limit:,}), or refused by the chat template, and left "
            "out"
        )
    if not scored:
        raise DataError(
            f"no row fits reward_model.max_length ({limit:,})", "evaluation.reward_bench"
        )
    ties: dict[str, dict[int, RatedPrompt]] = {}
    for row, rated in scored:
        if row.tie is not None:
            ties.setdefault(row.tie[0], {})[row.tie[1]] = rated
    plain = [(row, rated) for row, rated in scored if row.tie is None]
    if not plain and not ties.get("ref", {}).keys() & ties.get("tied", {}).keys():
        raise DataError(
            "no prompt of Ties has both its rows, ref:NUMBER and tied:NUMBER",
            "evaluation.reward_bench",
        )
    return best_of_metrics([rated for _, rated in plain], [row.subset for row, _ in plain], ties)
