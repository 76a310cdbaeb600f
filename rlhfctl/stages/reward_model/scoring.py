"""Scores of a reward model for token lists, by plain transformers calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


@torch.no_grad()
def score_ids(
    model: Any, rows: Sequence[Sequence[int]], pad_token_id: int, batch_size: int
) -> list[float]:
    """Return one score per row from a sequence classifier with one label.

    Args:
        model: Sequence classifier, adapted or not; left in evaluation mode.
        rows: Token ids of prompt and response, including the EOS.
        pad_token_id: Right padding; the last token of no row.
        batch_size: Rows per forward pass.
    """
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    scores = [0.0] * len(rows)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        width = len(rows[chosen[-1]])
        ids = [list(rows[row]) + [pad_token_id] * (width - len(rows[row])) for row in chosen]
        mask = [[1] * len(rows[row]) + [0] * (width - len(rows[row])) for row in chosen]
        logits = model(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            use_cache=False,
        ).logits
        for row, score in zip(chosen, logits.float().squeeze(-1).tolist(), strict=True):
            scores[row] = score
    return scores
