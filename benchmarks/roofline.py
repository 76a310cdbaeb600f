"""Minimum operations of PPO, and the machine's matrix multiplication speed at its shapes.

Counts the matrix products of linear layers, attention and the LM head. Norms, activations, softmax
and optimisers are not counted, so a share of 100 % is unreachable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.checkpoints import RANK
from benchmarks.machine import matmul_flops
from benchmarks.shapes import SHAPES

if TYPE_CHECKING:
    from benchmarks.work import Work

PHASES = ("generation", "scoring", "update")
BACKWARD_FULL, BACKWARD_LORA = 2.0, 1.0
"""Forward passes per backward pass; with LoRA, the base weights have no gradient."""


def phase_flops(work: Work) -> dict[str, float]:
    """Return the floating-point operations of the timed rollouts by phase.

    Generation: policy on each token once, LM head on each response token. Scoring: policy,
    reference, reward model and critic on whole episodes, LM head on response tokens of the first
    two. Update: policy and critic forward and backward, per epoch.
    """
    shape = SHAPES[work.shape]
    weights = float(shape.decoder_weights)
    if work.lora:
        weights += RANK * shape.num_hidden_layers * sum(a + b for a, b in shape.linears)
    # A causal pass attends to half of the square; QK and PV are two products.
    attention = 2.0 * shape.num_hidden_layers * shape.hidden_size * work.length**2
    tokens, episodes = work.length, work.episodes
    decoder = episodes * (2.0 * weights * tokens + attention)
    head = episodes * 2.0 * shape.hidden_size * shape.vocab_size * work.response_length
    backward = BACKWARD_LORA if work.lora else BACKWARD_FULL
    return {
        "generation": decoder + head,
        "scoring": 4 * decoder + 2 * head,
        "update": work.epochs * (1 + backward) * (2 * decoder + head),
    }


def shape_flops(work: Work) -> dict[str, float]:
    """Return operations per second of the linear layers alone, at the batch size of each phase."""
    shape = SHAPES[work.shape]
    rows = {
        "generation": work.batch,
        "scoring": work.batch * work.length,
        "update": work.minibatch * work.length,
    }
    rates = {}
    for phase, count in rows.items():
        seconds = total = 0.0
        for inner, columns in shape.linears:
            flops = 2.0 * count * inner * columns
            total += flops
            seconds += flops / matmul_flops(count, inner, columns, getattr(torch, work.dtype))
        rates[phase] = total / seconds
    return rates
