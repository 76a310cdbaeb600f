"""Forward and backward passes of fake tensors, with the places that their peaks are told by."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from rlhfctl.plan.live_bytes import LiveBytes
    from rlhfctl.plan.shadow import Shadow


def hold_model(shadow: Shadow, live: LiveBytes) -> None:
    """Count a model's tensors as weights and adapters."""
    for name, parameter in shadow.model.named_parameters():
        live.hold(parameter, "adapters" if shadow.is_added(name) else "weights")
    for buffer in shadow.model.buffers():
        live.hold(buffer, "weights")


@contextmanager
def places(shadow: Shadow, live: LiveBytes) -> Iterator[None]:
    """Name the places of a pass: forward and backward per decoder layer, and what is outside."""
    handles = []
    for number, layer in enumerate(shadow.layers):
        handles += [
            layer.register_forward_pre_hook(partial(_before, live, number), with_kwargs=True),
            layer.register_forward_hook(partial(_after, live, number)),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _before(live: LiveBytes, number: int, _: Any, args: Any, kwargs: Any) -> None:
    states = args[0] if args else kwargs.get("hidden_states")
    if live.label[0] == "backward":
        return  # recomputed by checkpointing, as part of the backward pass
    live.enter("forward", number)
    if states is not None and states.requires_grad and not states.is_leaf:
        states.register_hook(partial(_entered, live, number - 1))


def _after(live: LiveBytes, number: int, _: Any, args: Any, output: Any) -> None:
    if live.label[0] == "backward":
        return
    states = output[0] if isinstance(output, tuple) else output
    live.enter("between", number)
    if states.requires_grad:
        states.register_hook(partial(_entered, live, number))


def _entered(live: LiveBytes, number: int, _: Tensor) -> None:
    """Note that the gradient of a layer's output is there, so that its backward pass begins."""
    live.enter("backward", number)


def train(
    shadow: Shadow,
    live: LiveBytes,
    loss: Callable[[], Tensor],
    *,
    accumulates: bool,
) -> None:
    """Run a forward and a backward pass, and leave the gradients.

    Args:
        shadow: Model, counted by `hold_model`.
        live: Counts the bytes.
        loss: Runs the forward pass and returns its loss.
        accumulates: Whether gradients of an earlier pass are there from the start.
    """
    handles = [
        weight.register_post_accumulate_grad_hook(
            lambda parameter: live.hold(parameter.grad, "gradients")
        )
        for weight in shadow.trained()
    ]
    if accumulates:
        with live.category("gradients"):
            for weight in shadow.trained():
                weight.grad = torch.zeros_like(weight)
    with places(shadow, live):
        loss().backward()
    for handle in handles:
        handle.remove()


def drop_gradients(shadow: Shadow) -> None:
    """Free the gradients."""
    for weight in shadow.trained():
        weight.grad = None
