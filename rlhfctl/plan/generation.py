"""Sampling of responses on fake tensors: the prompts' pass, then the pass of the last token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache, StaticCache

from rlhfctl.maths.sampling import inverse_cdf
from rlhfctl.models.generation import static_cache_length
from rlhfctl.plan.passes import places

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Cache

    from rlhfctl.plan.live_bytes import LiveBytes
    from rlhfctl.plan.shadow import Shadow


@torch.no_grad()
def sample(
    shadow: Shadow, live: LiveBytes, rows: int, lengths: tuple[int, int], *, static: bool
) -> None:
    """Run the two largest passes of `rlhfctl.models.generation.generate`.

    Args:
        shadow: Language model in evaluation mode.
        live: Counts the bytes.
        rows: Prompts of the batch.
        lengths: Tokens of the longest prompt, left-padded, and of the responses.
        static: Whether the cache has a fixed size.
    """
    prompt, response = lengths
    with places(shadow, live):
        if static:
            fixed = _FixedCache(shadow, live, static_cache_length(prompt + response))
            _pass(shadow, live, fixed, rows, prompt, prompt)
            live.enter("last token")
            _pass(shadow, live, fixed, rows, 1, prompt + response)
            return
        cache = _Cache(shadow, live)
        _pass(shadow, live, cache, rows, prompt, prompt)
        # Clones without rows, so that the prompts' cache is freed.
        like = [[part[:0].clone() for part in (layer.keys, layer.values)] for layer in cache.layers]
        del cache
        cache = _Cache(shadow, live)
        for number, pair in enumerate(like):
            cache.update(*(_filled(part, rows, prompt + response - 1) for part in pair), number)
        live.enter("last token")
        _pass(shadow, live, cache, rows, 1, prompt + response)


def _filled(like: Tensor, rows: int, length: int) -> Tensor:
    """Return keys or values of `rows` rows and `length` tokens, of the kind of others."""
    return like.new_empty((rows, like.shape[1], length, like.shape[3]))


class _Cache(DynamicCache):  # type: ignore[misc]
    """transformers' cache, whose tensors are counted as such."""

    def __init__(self, shadow: Shadow, live: LiveBytes) -> None:
        super().__init__(config=shadow.base.config.get_text_config(decoder=True))
        self._live = live

    def update(self, *arguments: Any, **named: Any) -> Any:
        with self._live.category("kv_cache"):
            return super().update(*arguments, **named)


class _FixedCache(StaticCache):  # type: ignore[misc]
    """transformers' cache of fixed size, whose tensors are counted as such."""

    def __init__(self, shadow: Shadow, live: LiveBytes, length: int) -> None:
        super().__init__(shadow.base.config.get_text_config(decoder=True), max_cache_len=length)
        self._live = live

    def update(self, *arguments: Any, **named: Any) -> Any:
        with self._live.category("kv_cache"):
            return super().update(*arguments, **named)


def _pass(
    shadow: Shadow, live: LiveBytes, cache: Cache, rows: int, tokens: int, length: int
) -> None:
    """Run a pass of `tokens` per row and sample one; `length` counts those in the cache too."""
    logits = shadow.base(
        input_ids=torch.zeros((rows, tokens), dtype=torch.long),
        attention_mask=torch.ones((rows, length), dtype=torch.long),
        position_ids=torch.zeros((rows, tokens), dtype=torch.long),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits
    live.enter("sampling")
    scores = logits[:, -1].to(copy=True, dtype=torch.float32)
    token = inverse_cdf(scores, torch.zeros(rows), 1.0)
    torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)
