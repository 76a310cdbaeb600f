"""Responses by transformers' `generate`, sampled from the softmax at a temperature and nothing else.

No top-k, top-p, penalty or forced token comes in: log-probabilities are of what was sampled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, LogitsProcessor

from rlhfctl.maths.sampling import inverse_cdf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


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

    Prompts are padded on the left; transformers counts positions from each prompt's own start.

    Args:
        model: A causal language model in evaluation mode.
        prompts: B lists of token ids.
        uniforms: [B, R] on the model's device; R is the length limit.
        temperature: Of the softmax.
        vocabulary: Tokens that the tokenizer knows; rows of the head beyond them are padding.
        stop_token_ids: What ends a response.
        pad_token_id: None of the stop tokens.
        synced: Go on until every process is done, since each needs the others' weights.
    """
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad_token_id] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    output = model.generate(
        input_ids=ids.to(uniforms.device),
        attention_mask=mask.to(uniforms.device),
        logits_processor=[UniformSampling(uniforms, width, temperature, vocabulary)],
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=uniforms.shape[1],
            eos_token_id=list(stop_token_ids),
            pad_token_id=pad_token_id,
            use_cache=True,
        ),
        synced_gpus=synced,
    )
    stops = set(stop_token_ids)
    return [_cut(row, stops) for row in output[:, width:].tolist()]


def _cut(tokens: list[int], stops: set[int]) -> list[int]:
    for at, token in enumerate(tokens):
        if token in stops:
            return tokens[: at + 1]
    return tokens
