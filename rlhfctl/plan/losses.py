"""The losses of the stages on fake tensors, by the functions that the stages call.

SFT's is TRL 1.16's `ChunkedLogProbFunction`, which never holds all logits: tiles of 4,096 tokens by
32,768 of the vocabulary, and on a CPU some copies of a tile in fp32. PPO's is
`rlhfctl.maths.log_probs.token_log_probs`, which holds 2^25 logits at a time and recomputes each chunk
in the backward pass. The reward model and the critic have one output per token and no logits.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch.nn.functional import logsigmoid

from rlhfctl.maths.log_probs import token_log_probs
from rlhfctl.models.heads import linear_float32
from rlhfctl.models.lm_head import LMHead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from rlhfctl.plan.live_bytes import LiveBytes
    from rlhfctl.plan.shadow import Shadow

_VOCABULARY_TILE = 32_768
"""Width of TRL's tiles."""
_OUTPUTS = ("log_probs", "entropy", "is_top1")


def sft_loss(shadow: Shadow, live: LiveBytes, rows: int, length: int, *, on_gpu: bool) -> Tensor:
    """Return the loss of an SFT batch, as `SFTTrainer.compute_loss` does.

    Args:
        shadow: Language model.
        live: Counts the bytes.
        rows: Rows of the batch.
        length: Tokens of its longest row; others are padded to it. Every token counts in the loss.
        on_gpu: Whether memory counts once it is reserved. On a CPU a tile's columns beyond a small
            vocabulary are never written, so they take no memory.
    """
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    ids = torch.zeros((rows, length), dtype=torch.long)
    labels = torch.zeros_like(ids)
    states = shadow.decoder(input_ids=ids, attention_mask=_padding(ids), use_cache=False)[0]
    live.enter("head")
    text = shadow.base.config.get_text_config()
    head = shadow.base.get_output_embeddings()
    width = _VOCABULARY_TILE if on_gpu else min(_VOCABULARY_TILE, len(head.weight))
    log_probs: Tensor = ChunkedLogProbFunction.apply(
        *(states[:, :-1].reshape(-1, states.shape[-1]), head.weight, head.bias),
        *(labels[:, 1:].reshape(-1), 1.0, width),
        *(getattr(text, "final_logit_softcapping", None), 1.0, _OUTPUTS),
    )[0]
    return log_probs.sum()


@contextmanager
def triton_tiles(*, on_gpu: bool) -> Iterator[None]:
    """On a GPU, let TRL's tiles be computed in place, as its Triton kernels do."""
    if not on_gpu:
        yield
        return
    import trl.kernels.chunked_logprob as kernels

    def nothing(*_: Any, **__: Any) -> None:
        """Write no tensor."""

    with (
        patch.object(kernels, "_forward_tile", nothing),
        patch.object(kernels, "_backward_tile", nothing),
        patch.object(kernels, "_addmm_fp32", nothing),
    ):
        yield


def reward_loss(shadow: Shadow, live: LiveBytes, pairs: int, length: int) -> Tensor:
    """Return the loss of a reward model's batch, as `RewardTrainer.compute_loss` does.

    Args:
        shadow: Scorer.
        live: Counts the bytes.
        pairs: Pairs of the batch.
        length: Tokens of its longest row.
    """
    ids = torch.zeros((2 * pairs, length), dtype=torch.long)
    logits = shadow.model(input_ids=ids, attention_mask=_padding(ids), use_cache=False).logits
    live.enter("scores")
    chosen, rejected = torch.chunk(logits.squeeze(-1), chunks=2)
    return -logsigmoid(chosen - rejected).mean()


def _padding(ids: Tensor) -> Tensor | None:
    """Return the mask of a batch with rows of several lengths; a single row has no padding.

    transformers leaves out a mask of ones only. With one, it repeats the keys of grouped queries.
    """
    return torch.ones_like(ids) if len(ids) > 1 else None


def policy_log_probs(
    shadow: Shadow,
    live: LiveBytes,
    episodes: int,
    lengths: tuple[int, int],
    *,
    with_entropy: bool,
) -> Tensor:
    """Return log-probabilities [N] of all responses, as `Roles.log_probs` does.

    Args:
        shadow: Language model.
        live: Counts the bytes.
        episodes: Episodes of the pass.
        lengths: Tokens of prompts and of responses.
        with_entropy: Whether the entropy is computed too, as in rollouts.
    """
    states = _response_states(shadow.decoder, episodes, lengths)
    live.enter("head")
    return _log_probs(shadow, states, with_entropy=with_entropy)


def policy_log_probs_and_values(
    shadow: Shadow,
    head: torch.nn.Linear,
    live: LiveBytes,
    episodes: int,
    lengths: tuple[int, int],
    *,
    with_entropy: bool,
) -> Tensor:
    """Return log-probabilities and values [2, N] of one pass, as `Roles.log_probs_and_values` does.

    Args:
        shadow: Language model.
        head: Value head.
        live: Counts the bytes.
        episodes: Episodes of the pass.
        lengths: Tokens of prompts and of responses.
        with_entropy: Whether the entropy is computed too, as in rollouts.
    """
    states = _response_states(shadow.decoder, episodes, lengths)
    live.enter("head")
    log_probs = _log_probs(shadow, states, with_entropy=with_entropy)
    return torch.stack([log_probs, linear_float32(head, states).squeeze(-1)])


def _log_probs(shadow: Shadow, states: Tensor, *, with_entropy: bool) -> Tensor:
    targets = torch.zeros(len(states), dtype=torch.long)
    vocabulary = shadow.base.config.get_text_config().vocab_size
    return token_log_probs(
        *(LMHead(shadow.base), states, targets, vocabulary), with_entropy=with_entropy
    ).log_probs


def critic_values(
    decoder: Any, head: torch.nn.Linear, live: LiveBytes, episodes: int, lengths: tuple[int, int]
) -> Tensor:
    """Return values [N] at all response tokens, as `Roles.values` of a critic of its own does."""
    states = _response_states(decoder, episodes, lengths)
    live.enter("scores")
    return linear_float32(head, states).squeeze(-1)


def _response_states(decoder: Any, episodes: int, lengths: tuple[int, int]) -> Tensor:
    """Return the states [N, H] that predict the response tokens; right padding needs no mask."""
    prompt, response = lengths
    states = decoder(torch.zeros((episodes, prompt + response), dtype=torch.long), use_cache=False)[
        0
    ]
    rows = torch.zeros(episodes * response, dtype=torch.long)
    gathered: Tensor = states[rows, rows]
    return gathered
