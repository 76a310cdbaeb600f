"""Scores of comparisons by the run's reward model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.data.formatter import Pair
from rlhfctl.maths.sequences import Sequences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rlhfctl.data.rows import Row, Value
    from rlhfctl.stages.evaluation.context import EvalContext

_ROWS_ENCODED_AT_ONCE = 256


@dataclass(frozen=True)
class Pairs:
    """Comparisons with scores of the reward model.

    Attributes:
        rows: [pairs] comparisons that fit the reward model's maximum length.
        chosen: [pairs] raw scores of the chosen responses.
        rejected: [pairs] raw scores of the rejected ones.
        chosen_lengths: [pairs] tokens of the chosen responses, including the end token.
        rejected_lengths: [pairs] tokens of the rejected responses.
    """

    rows: Sequence[Row]
    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]
    chosen_lengths: NDArray[np.float64]
    rejected_lengths: NDArray[np.float64]


def score_pairs(context: EvalContext, rows: Sequence[Row], what: str) -> Pairs:
    """Score both responses of each comparison; leave out pairs that are too long, with a warning.

    Args:
        context: The evaluation, with a reward model.
        rows: Rows with `prompt`, `chosen` and `rejected`.
        what: Name of the rows in messages.
    """
    texts = [(row["prompt"], row[side]) for row in rows for side in ("chosen", "rejected")]
    scores, lengths = score_responses(context, texts)
    scores, lengths = scores.reshape(-1, 2), lengths.reshape(-1, 2)
    complete = np.isfinite(lengths).all(axis=1)
    if not complete.all():
        context.monitor.warn(
            f"{what}: {int((~complete).sum()):,} of {len(rows):,} rows are longer than "
            f"reward_model.max_length ({context.recipe.reward_model.max_length:,}), or refused by "
            "the chat template, and left out"
        )
    return Pairs(
        [rows[index] for index in np.flatnonzero(complete).tolist()],
        *scores[complete].T,
        *lengths[complete].T,
    )


def score_responses(
    context: EvalContext, texts: Sequence[tuple[Value, Value]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return raw scores and token lengths of responses, terminated as in training.

    Args:
        context: The evaluation, with a reward model.
        texts: [responses] prompt and response.

    Returns:
        Scores and lengths, [responses] each; NaN where prompt and response exceed
        `reward_model.max_length` or cannot be rendered.
    """
    roles, section = context.roles, context.recipe.reward_model
    formatter = context.session.formatter_for("comparisons")
    scores, lengths = np.full(len(texts), np.nan), np.full(len(texts), np.nan)
    context.monitor.start("eval reward model", len(texts), "scores")
    for start in range(0, len(texts), _ROWS_ENCODED_AT_ONCE):
        part = texts[start : start + _ROWS_ENCODED_AT_ONCE]
        fitting = {
            index: pair
            for index, pair in enumerate(formatter.each_pair(part))
            if isinstance(pair, Pair) and len(pair.prompt + pair.response) <= section.max_length
        }
        if fitting:
            places = start + np.array(list(fitting))
            sequences = Sequences.from_lists(
                [pair.prompt for pair in fitting.values()],
                [pair.response for pair in fitting.values()],
                roles.pad_token_id,
                roles.device,
            )
            lengths[places] = sequences.response_lengths.tolist()
            for rows, chunk in sequences.in_chunks(section.per_device_eval_batch_size):
                scores[places[rows.tolist()]] = roles.raw_scores(chunk).tolist()
        context.monitor.step(start + len(part), {})
    context.monitor.finish()
    return scores, lengths
