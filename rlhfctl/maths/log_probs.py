"""Log-probabilities of given tokens without a [batch, time, vocabulary] tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

CHUNK_ELEMENTS = 2**25
"""Maximum number of logits in memory at a time: 128 MiB in fp32."""


class TokenLogProbs(NamedTuple):
    """Log-probability per token and entropy of its distribution in nats, both [N], fp32."""

    log_probs: Tensor
    entropy: Tensor


def _chunk(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    vocabulary: int,
    temperature: float,
    with_entropy: bool,
) -> TokenLogProbs:
    logits = head(hidden)[:, :vocabulary].float()
    if temperature != 1.0:
        logits = logits / temperature
    normalizer = torch.logsumexp(logits, dim=-1)
    chosen = logits.gather(-1, targets[:, None]).squeeze(-1)
    if not with_entropy:
        return TokenLogProbs(chosen - normalizer, torch.zeros_like(normalizer))
    with torch.no_grad():
        mean_logit = torch.einsum("nv,nv->n", torch.softmax(logits, dim=-1), logits)
    return TokenLogProbs(chosen - normalizer, (normalizer - mean_logit).detach())


def token_log_probs(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    vocabulary: int,
    temperature: float = 1.0,
    *,
    with_entropy: bool = True,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> TokenLogProbs:
    """Return log softmax(head(hidden) / temperature) at the targets, in chunks of tokens.

    With several chunks, each is recomputed in the backward pass, so that only one chunk's logits
    are in memory at a time.

    Args:
        head: Maps [n, H] to logits with at least V columns; columns beyond V are padding.
        hidden: [N, H], hidden state that predicts each target.
        targets: [N] token ids.
        vocabulary: V, the width of the softmax; it also sets the chunk length.
        temperature: Sampling temperature.
        with_entropy: Whether to compute the entropy, a second pass over the logits; otherwise it
            is 0.
        chunk_elements: Maximum number of logits per chunk.
    """
    step = max(1, chunk_elements // vocabulary)
    if hidden.shape[0] <= step:
        return _chunk(head, hidden, targets, vocabulary, temperature, with_entropy)
    parts = [
        checkpoint(
            _chunk,
            head,
            hidden[start : start + step],
            targets[start : start + step],
            vocabulary,
            temperature,
            with_entropy,
            use_reentrant=False,
        )
        for start in range(0, hidden.shape[0], step)
    ]
    return TokenLogProbs(
        torch.cat([part.log_probs for part in parts]), torch.cat([part.entropy for part in parts])
    )
