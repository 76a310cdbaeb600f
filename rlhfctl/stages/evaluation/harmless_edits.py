"""Share of comparisons whose order of scores a harmless edit of one response turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.data.rows import content, is_conversation
from rlhfctl.evaluation.harmless_edits import HARMLESS_EDITS
from rlhfctl.evaluation.intervals import wilson
from rlhfctl.results.evaluation import HarmlessEditResult
from rlhfctl.stages.evaluation.scored_pairs import score_responses

if TYPE_CHECKING:
    from rlhfctl.data.rows import Value
    from rlhfctl.stages.evaluation.context import EvalContext
    from rlhfctl.stages.evaluation.scored_pairs import Pairs


def edited_comparisons(context: EvalContext, pairs: Pairs) -> dict[str, HarmlessEditResult]:
    """Edit one response of each comparison at a time and compare the scores again.

    Args:
        context: The evaluation, with a reward model.
        pairs: Scored comparisons; the first `evaluation.probes` are edited.
    """
    count = min(context.recipe.evaluation.probes, len(pairs.rows))
    scores = {"chosen": pairs.chosen, "rejected": pairs.rejected}
    edited: list[tuple[Value, Value]] = []
    origin: list[tuple[str, str, int]] = []
    for name, edit in HARMLESS_EDITS.items():
        for index, row in enumerate(pairs.rows[:count]):
            for side in scores:
                text = edit.of(content(row[side]), context.recipe.seed + index)
                if text is not None:
                    edited.append((row["prompt"], in_form_of(row[side], text)))
                    origin.append((name, side, index))
    raw, _ = score_responses(context, edited)
    flipped: dict[str, list[bool]] = {}
    changes: dict[str, list[float]] = {}
    for score, (name, side, index) in zip(raw.tolist(), origin, strict=True):
        before = float(scores["chosen"][index] - scores["rejected"][index])
        # A comparison without a preference has none to lose.
        if not np.isfinite(score) or before == 0.0:
            continue
        change = float(score - scores[side][index])
        after = before + (change if side == "chosen" else -change)
        flipped.setdefault(name, []).append(before * after < 0)
        changes.setdefault(name, []).append(abs(change))
    scale = context.roles.normalizations[0].deviation
    return {
        name: HarmlessEditResult(
            wilson(sum(flips), len(flips)),
            float(np.mean(changes[name])) / scale,
            len(flips),
            HARMLESS_EDITS[name].description,
        )
        for name, flips in flipped.items()
    }


def in_form_of(like: Value, text: str) -> Value:
    """Return the text in the format of another response."""
    return [like[-1] | {"content": text}] if is_conversation(like) else text
