"""Scores of a reward model for token lists, by plain transformers calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

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
    # Read once and in order: each access to a row of a memory-mapped column costs about 1 ms.
    ids = [torch.tensor(list(row), dtype=torch.int32) for row in rows]
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    scores = [0.0] * len(ids)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        parts = [ids[row] for row in chosen]
        ones = [torch.ones(len(part), dtype=torch.int64) for part in parts]
        logits = model(
            input_ids=pad_sequence(parts, True, pad_token_id).long().to(device),
            attention_mask=pad_sequence(ones, True, 0).to(device),
            use_cache=False,
        ).logits
        for row, score in zip(chosen, logits.float().squeeze(-1).tolist(), strict=True):
            scores[row] = score
    return scores
