"""Responses by transformers' `generate`, sampled from the softmax at a temperature and nothing else.

No top-k, top-p, penalty or forced token comes in: log-probabilities are of what was sampled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, StoppingCriteria

from rlhfctl.maths.sampling import inverse_cdf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

ENOUGH = 0.5
"""Share of a batch that has ended when it is worth its while to go on without them."""


class UniformSampling(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token a row: that of the row's next uniform number."""

    def __init__(
        self, uniforms: Tensor, prompt_width: int, temperature: float, vocabulary: int
    ) -> None:
        """Take the numbers of a whole batch.

        Args:
            uniforms: [B, R], one number for each token to come.
            prompt_width: Columns of the prompts.
            temperature: Divides the logits.
            vocabulary: Tokens from here on are never taken.
        """
        self.uniforms = uniforms
        self.prompt_width = prompt_width
        self.temperature = temperature
        self.vocabulary = vocabulary

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores [B, V] that are 0 at the sampled token and -inf elsewhere."""
        numbers = self.uniforms[:, input_ids.shape[1] - self.prompt_width]
        tokens = inverse_cdf(scores[:, : self.vocabulary], numbers, self.temperature)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


class _EnoughEnded(StoppingCriteria):  # type: ignore[misc]
    """Halts a whole batch as soon as a share of its rows have ended."""

    def __init__(self, stops: Tensor, rows: int) -> None:
        """Look for stop tokens [S] in the new tokens of a number of rows."""
        self.stops = stops
        self.ended = torch.zeros(rows, dtype=torch.bool, device=stops.device)

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Return [B], all True when it is time."""
        self.ended |= torch.isin(input_ids[:, -1], self.stops)
        return (self.ended.float().mean() >= ENOUGH).expand_as(self.ended)


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    uniforms: Tensor,
    *,
    temperature: float,
    vocabulary: int,
    stop_token_ids: Sequence[int],
    pad_token_id: int,
    synced: bool = False,
) -> list[list[int]]:
    """Return a response to each prompt, its stop token included where it ended by one.

    Prompts are padded on the left; transformers counts positions from each prompt's own start. Rows
    that have ended leave the batch, a share of it at a time, so that few long responses do not keep
    all the others computing.

    Args:
        model: A causal language model in evaluation mode.
        prompts: B lists of token ids.
        uniforms: [B, R] on the model's device; R is the length limit.
        temperature: Of the softmax.
        vocabulary: Tokens that the tokenizer knows; rows of the head beyond them are padding.
        stop_token_ids: What ends a response.
        pad_token_id: None of the stop tokens.
        synced: Keep the batch whole until every process is done, since each needs the others'
            weights for every pass.
    """
    width, limit = max(len(prompt) for prompt in prompts), uniforms.shape[1]
    stops = torch.tensor(stop_token_ids, device=uniforms.device)
    ids = torch.tensor([[pad_token_id] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    ids, mask = ids.to(stops.device), mask.to(stops.device)
    cache = None if synced else _shrinkable_cache(model)
    left = torch.arange(len(prompts), device=stops.device)
    responses: list[list[int]] = [[] for _ in prompts]
    while len(left):
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            logits_processor=[UniformSampling(uniforms[left], width, temperature, vocabulary)],
            stopping_criteria=[] if cache is None else [_EnoughEnded(stops, len(left))],
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=limit + width - ids.shape[1],
                eos_token_id=list(stop_token_ids),
                pad_token_id=pad_token_id,
                use_cache=True,
            ),
            synced_gpus=synced,
        )
        new = output[:, width:]
        ended = torch.isin(new, stops).any(1) | (new.shape[1] == limit) | (cache is None)
        for row, tokens in zip(left[ended].tolist(), new[ended].tolist(), strict=True):
            responses[row] = _cut(tokens, set(stop_token_ids))
        rest = (~ended).nonzero().squeeze(1)
        left, mask = left[rest], mask[rest]
        mask = torch.cat([mask, mask.new_ones(len(rest), output.shape[1] - mask.shape[1])], dim=1)
        ids = output[rest]
        if cache is not None:
            cache.batch_select_indices(rest)
    return responses


def _shrinkable_cache(model: Any) -> DynamicCache | None:
    """Return an empty cache that rows can be taken out of; None for an architecture without one."""
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    able = all(hasattr(layer, "batch_select_indices") for layer in cache.layers)
    return cache if able else None


def _cut(tokens: list[int], stops: set[int]) -> list[int]:
    for at, token in enumerate(tokens):
        if token in stops:
            return tokens[: at + 1]
    return tokens
