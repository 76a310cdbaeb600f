"""Logits from decoder states by the language model's own code, with its scales, caps and biases.

Many architectures do more after the decoder than one matrix product: Gemma 2 caps logits, Cohere and
Granite scale them, MiniCPM scales the states, GPT-J adds a bias, BERT's head has a layer of its own.
`LMHead` runs the model's own `forward` with the decoder replaced by given states. It therefore does
whatever that model does, and only at the positions that are asked for.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast

from rlhfctl.errors import EnvironmentFault
from rlhfctl.models.base import decoder_name

if TYPE_CHECKING:
    from torch import Tensor

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest difference of logits that rounding explains, relative to the largest logit."""


class _Output(BaseModelOutputWithPast):  # type: ignore[misc]
    """Output of a decoder that has states only; any other field is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _GivenStates(torch.nn.Module):
    """Takes a decoder's place: called, it returns given states [1, N, H]; its attributes remain."""

    def __init__(self, decoder: Any, states: Tensor) -> None:
        super().__init__()
        self._decoder_and_states = (decoder, states)  # in a tuple, so as not to become a submodule

    @property
    def decoder(self) -> _GivenStates:
        """Itself: some language models call `model.decoder`."""
        return self

    def forward(self, *_: Any, **__: Any) -> _Output:
        """Return the states, whatever the input."""
        return _Output(last_hidden_state=self._decoder_and_states[1])

    def __getattr__(self, name: str) -> Any:
        """Return the decoder's attribute, such as Falcon-H1's `lm_head_multiplier`."""
        return getattr(self.__dict__["_decoder_and_states"][0], name)


class LMHead:
    """Map from decoder states to logits, the one that a language model computes itself."""

    def __init__(self, model: Any) -> None:
        """Keep the model; its weights are read at every call.

        Args:
            model: Causal language model of transformers with a separate decoder.
        """
        self.model = model

    def __call__(self, states: Tensor) -> Tensor:
        """Return logits [N, V] of states [N, H], with gradients to states and head."""
        model = self.model
        # A second object over the same weights: the model itself stays as it is.
        shell = copy(model)
        shell._modules = dict(model._modules)
        name = decoder_name(model)
        shell._modules[name] = _GivenStates(model._modules[name], states[None])
        ids = torch.zeros((1, len(states)), dtype=torch.long, device=states.device)
        # Not `shell(ids)`: hooks of the model, and a patched `forward`, belong to the whole model.
        logits: Tensor = type(model).forward(shell, input_ids=ids, use_cache=False).logits[0]
        return logits


@torch.no_grad()
def check_language_model(model: Any, decoder: torch.nn.Module, device: torch.device) -> int:
    """Check that decoder and `LMHead` give the model's logits, and that these are causal.

    Log-probabilities are read from one pass over prompt and response. They belong to the distribution
    sampled from only if no logit depends on a later token.

    Args:
        model: Causal language model in evaluation mode.
        decoder: Its decoder.
        device: Device of both.

    Returns:
        Number of logits per position.

    Raises:
        EnvironmentFault: The logits differ, or depend on later tokens.
    """
    ids = torch.arange(1, 7, device=device)[None, :]
    logits = model(ids, use_cache=False).logits[0]
    direct = LMHead(model)(decoder(ids, use_cache=False)[0][0])
    if not _close(direct, logits):
        raise _refused("computes logits from more than its decoder's states")
    ids = torch.cat([ids[:, :-1], ids[:, :1]], dim=1)
    if not _close(model(ids, use_cache=False).logits[0, :-1], logits[:-1]):
        raise _refused("is not causal: logits depend on later tokens")
    return int(logits.shape[-1])


def _close(actual: Tensor, expected: Tensor) -> bool:
    if actual.shape != expected.shape:
        return False
    size = float(expected.float().abs().max())
    if not size < float("inf"):
        return True  # NaN and infinity are reported where responses are sampled.
    return float((actual - expected).float().abs().max()) <= _TOLERANCE[expected.dtype] * size


def _refused(reason: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"this architecture {reason}, so PPO cannot use it",
        "model.name_or_path",
        "Use a decoder-only causal language model.",
    )
