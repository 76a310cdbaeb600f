"""A reward model's scores of token lists, as any user of transformers would get them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


@torch.no_grad()
def score_ids(
    model: Any, rows: Sequence[Sequence[int]], pad_token_id: int, batch_size: int
) -> list[float]:
    """Return the score of each row by a sequence classifier of one label.

    Args:
        model: A sequence classifier, adapted or not, in evaluation mode afterwards.
        rows: Prompt and response, the EOS included.
        pad_token_id: Right padding; stands in no row.
        batch_size: Rows a forward pass.
    """
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    scores = [0.0] * len(rows)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        width = len(rows[chosen[-1]])
        ids = [list(rows[at]) + [pad_token_id] * (width - len(rows[at])) for at in chosen]
        mask = [[1] * len(rows[at]) + [0] * (width - len(rows[at])) for at in chosen]
        logits = model(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            use_cache=False,
        ).logits
        for at, score in zip(chosen, logits.float().squeeze(-1).tolist(), strict=True):
            scores[at] = score
    return scores
