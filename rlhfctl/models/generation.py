"""Sampling of responses by transformers' `generate`, from the plain softmax at a temperature.

There is no top-k, top-p, penalty or forced token, so log-probabilities describe the distribution
that was sampled from.
"""

from __future__ import annotations

import math
import time
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    CompileConfig,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    StoppingCriteria,
)

from rlhfctl import activity
from rlhfctl.errors import DivergedError
from rlhfctl.maths.sampling import first_maximum, inverse_cdf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

ENOUGH = 0.5
"""Share of ended rows at which they are removed from the batch."""
PUBLISH_INTERVAL = 0.5
"""Seconds between published counts of ended responses."""
CACHE_STEP = 64
"""Tokens to a multiple of which a static cache is rounded up: each size is compiled anew."""


class UniformSampling(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token per row, chosen by the row's next uniform number."""

    def __init__(
        self, uniforms: Tensor, prompt_width: int, temperature: float, vocabulary: int
    ) -> None:
        """Store the uniform numbers of a batch.

        Args:
            uniforms: [B, R], one number per token to sample.
            prompt_width: Width of the padded prompts.
            temperature: Divisor of the logits; 0: the most probable token.
            vocabulary: Largest id + 1; larger ids are never sampled.
        """
        self.uniforms = uniforms
        self.prompt_width = prompt_width
        self.temperature = temperature
        self.vocabulary = vocabulary
        self.failed = torch.zeros((), dtype=torch.bool, device=uniforms.device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores [B, V] that are 0 at the sampled token and -inf elsewhere."""
        numbers = self.uniforms[:, input_ids.shape[1] - self.prompt_width]
        usable = scores[:, : self.vocabulary]
        tokens = (
            inverse_cdf(usable, numbers, self.temperature)
            if self.temperature
            else first_maximum(usable)
        )
        # Only noted here, since reading it would make a GPU wait at every token.
        self.failed |= (tokens == usable.shape[1]).any()
        tokens = tokens.clamp(max=usable.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


class _Progress:
    """Publishes how many responses of a call have ended, every `PUBLISH_INTERVAL`."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.before = 0
        self.published_at = time.monotonic()

    def publish(self, ended: Tensor) -> None:
        """Publish the rows [B] that have ended, besides those that were removed before."""
        now = time.monotonic()
        # Reading the count makes a GPU wait, so it is read only when it is due.
        if now - self.published_at >= PUBLISH_INTERVAL and activity.is_listened_to():
            self.published_at = now
            activity.publish("generating", self.before + int(ended.sum()), self.total)


class _EnoughEnded(StoppingCriteria):  # type: ignore[misc]
    """Stops generation for the whole batch once a share of its rows has ended."""

    def __init__(self, stops: Tensor, rows: int, share: float, progress: _Progress) -> None:
        """Store the stop tokens [S] and the share, infinite for never; no row has ended yet."""
        self.stops = stops
        self.share = share
        self.progress = progress
        self.ended = torch.zeros(rows, dtype=torch.bool, device=stops.device)

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Return [B], all True once enough rows have ended."""
        self.ended |= torch.isin(input_ids[:, -1], self.stops)
        self.progress.publish(self.ended)
        return (self.ended.float().mean() >= self.share).expand_as(self.ended)


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
    static_cache: bool = False,
) -> list[list[int]]:
    """Return one response per prompt, including its stop token, if any.

    Prompts are left-padded; transformers counts positions from each prompt's first token. Ended
    rows are removed from the batch, at least `ENOUGH` of it at a time, so that they cost nothing
    while longer responses continue.

    Args:
        model: Causal language model in evaluation mode.
        prompts: Token ids, one list per prompt.
        uniforms: [B, R], on the model's device; R is the maximum response length.
        temperature: Divisor of the logits; 0: the most probable token.
        vocabulary: The tokenizer's largest id + 1; further rows of the head are padding.
        stop_token_ids: Tokens that end a response.
        pad_token_id: Pad token; not a stop token.
        synced: Keep all rows until every process is done. Needed with a sharded base, since every
            pass involves all processes.
        static_cache: Keep all rows until the last has ended, in a cache of fixed size, and compile
            the pass of one token per row.

    Raises:
        DivergedError: A logit is NaN or infinite.
    """
    width, limit = max(len(prompt) for prompt in prompts), uniforms.shape[1]
    stops = torch.tensor(stop_token_ids, device=uniforms.device)
    ids = torch.tensor([[pad_token_id] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    ids, mask = ids.to(stops.device), mask.to(stops.device)
    cache = None if synced or static_cache else _shrinkable_cache(model)
    share = math.inf if cache is None else ENOUGH
    active = torch.arange(len(prompts), device=stops.device)
    responses: list[list[int]] = [[] for _ in prompts]
    progress = _Progress(len(prompts))
    while len(active):
        sampling = UniformSampling(uniforms[active], width, temperature, vocabulary)
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            logits_processor=[sampling],
            stopping_criteria=[_EnoughEnded(stops, len(active), share, progress)],
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=limit + width - ids.shape[1],
                eos_token_id=list(stop_token_ids),
                pad_token_id=pad_token_id,
                use_cache=True,
                **(_static_cache(width + limit, model.device) if static_cache else {}),
            ),
            synced_gpus=synced,
        )
        _require_finite(sampling)
        new = output[:, width:]
        ended = torch.isin(new, stops).any(1) | (new.shape[1] == limit) | (cache is None)
        for row, tokens in zip(active[ended].tolist(), new[ended].tolist(), strict=True):
            responses[row] = _cut(tokens, set(stop_token_ids))
        remaining = (~ended).nonzero().squeeze(1)
        active, mask = active[remaining], mask[remaining]
        progress.before = len(prompts) - len(active)
        mask = torch.cat(
            [mask, mask.new_ones(len(remaining), output.shape[1] - mask.shape[1])], dim=1
        )
        ids = output[remaining]
        if cache is not None:
            cache.batch_select_indices(remaining)
    return responses


def static_cache_length(tokens: int) -> int:
    """Return the size of a static cache for a number of tokens per row."""
    return math.ceil(tokens / CACHE_STEP) * CACHE_STEP


def _static_cache(length: int, on: torch.device) -> dict[str, Any]:
    """Return the settings of a cache of fixed size, for at least `length` tokens per row."""
    settings: dict[str, Any] = {
        "cache_implementation": "static",
        "max_cache_len": static_cache_length(length),
    }
    if on.type == "cpu":
        # transformers compiles on a CPU only with this attribute, and its default mode is for GPUs.
        settings["compile_config"] = CompileConfig(mode="default")
        settings["compile_config"]._compile_all_devices = True
    return settings


def _require_finite(sampling: UniformSampling) -> None:
    if sampling.failed:
        raise DivergedError(
            "logits are not finite numbers where a response is sampled",
            hint="Lower the learning rate and start from an earlier checkpoint; with model.dtype: "
            "float16, which overflows above 65,504, try bfloat16 or float32.",
        )


def _shrinkable_cache(model: Any) -> DynamicCache | None:
    """Return an empty cache whose rows can be removed; None if the architecture has none."""
    if "past_key_values" not in signature(type(model).forward).parameters:
        return None
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    shrinkable = all(hasattr(layer, "batch_select_indices") for layer in cache.layers)
    return cache if shrinkable else None


def _cut(tokens: list[int], stops: set[int]) -> list[int]:
    for index, token in enumerate(tokens):
        if token in stops:
            return tokens[: index + 1]
    return tokens
