"""Comparison of an export's outputs with those of its checkpoint, on eight prompts.

The bound in float32 is 0.001. In half precision each weight and state of the merged model is rounded
to 8 (bfloat16) or 11 (float16) significant bits, so the bound is a share of the range of a prompt's
logits: measured on SmolLM2-135M's PPO adapter the largest difference of 49,152 logits is 3.3 % of it
in bfloat16 and 0.4 % in float16. The bounds are twice to five times that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rlhfctl.errors import DivergedError
from rlhfctl.export.options import LogitComparison

if TYPE_CHECKING:
    from torch import Tensor

    from rlhfctl.stages.shared.stage_context import StageContext

PROMPTS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Explain how a bicycle stays upright to a child of ten.",
    "List three uses of salt.",
    "2 + 2 =",
    "Why is the sky blue in the day and red in the evening?",
    "Translate to German: good morning.",
    "Is it safe to eat raw potatoes? Answer briefly and say why.",
)
"""Prompts of every comparison; their answers do not matter."""
LARGEST = 1e-3
"""Bound in float32, in logits."""
SHARES = {"float32": 0.0, "float16": 0.02, "bfloat16": 0.08}
"""Bound in half precision, as a share of the range of a prompt's logits."""


def comparison_rows(context: StageContext) -> list[list[int]]:
    """Return the token ids of the eight prompts, through the chat template if there is one."""
    formatter = context.formatter
    if context.tokenizer.chat_template is None:
        return formatter.prompts_ids(list(PROMPTS))
    return formatter.prompts_ids([[{"role": "user", "content": text}] for text in PROMPTS])


def compare(
    before: Tensor, after: Tensor, dtype: str, base: Tensor | None = None
) -> LogitComparison:
    """Compare outputs of a checkpoint and its export.

    Args:
        before: Outputs of the checkpoint, [prompts, V], or scores [prompts, 1].
        after: Outputs of the export.
        dtype: Precision of the export.
        base: Outputs of the base without the adapter; None for whole models and scores.
    """
    scores = before.shape[1] == 1
    spans = (before.amax(0) - before.amin(0)) if scores else (before.amax(1) - before.amin(1))
    span = float(spans.mean())
    same = (before.argmax(1) == after.argmax(1)).float().mean()
    return LogitComparison(
        prompts=len(before),
        largest=float((before - after).abs().max()),
        span=span,
        bound=max(LARGEST, SHARES[dtype] * max(span, float(before.abs().max()) if scores else 0.0)),
        training=None if base is None else float((before - base).abs().max()),
        same_first=None if scores else float(same),
    )


def require_close(comparison: LogitComparison, dtype: str) -> None:
    """Refuse an export whose outputs differ from those of its checkpoint.

    Raises:
        DivergedError: The largest difference is above the bound or not a number.
    """
    largest = torch.tensor(comparison.largest)
    if not bool(largest <= comparison.bound):
        raise DivergedError(
            f"the export is not the model that was trained: its outputs on {comparison.prompts} "
            f"prompts differ by up to {comparison.largest:.3g}; the bound in {dtype} is "
            f"{comparison.bound:.3g}",
            hint="export with --dtype float32, or export the adapter without --merge",
        )
