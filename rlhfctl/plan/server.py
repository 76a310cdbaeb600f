"""Memory of the server of vLLM that a run starts, a process of its own beside PPO's training.

In `mode: server` it holds its memory for the whole run. In `mode: colocate` it sleeps while PPO scores
and updates: CUDA's context is then all that it has on the GPU, and its weights lie in main memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlhfctl.plan.live_bytes import Split
from rlhfctl.plan.target import CUDA_CONTEXT, GIB, LIBRARIES

if TYPE_CHECKING:
    from rlhfctl.plan.stage_memory import Planned

_CPU_CACHE = GIB
"""KV cache of a server on a CPU: the run starts it with VLLM_CPU_KVCACHE_SPACE=1."""


@dataclass(frozen=True)
class Server:
    """The server's share of the device.

    Attributes:
        memory: Bytes that it takes, whatever it samples. On a GPU vLLM reserves
            `gpu_memory_utilization` of the whole memory when it starts.
        asleep: Bytes that it holds between rollouts; `memory` if it never sleeps.
        weights: Bytes of its copy of the base.
        cache: Bytes that are left for its KV cache and its passes; below 0 it cannot start.
    """

    memory: int
    asleep: int
    weights: int
    cache: int


def server_of(planned: Planned) -> Server | None:
    """Return the server that a run starts; None with transformers, and beside running servers.

    A base that is quantized here is counted in 16 bits, unless `server_args` name a quantization.
    """
    ppo = planned.recipe.ppo
    if ppo.engine != "vllm" or ppo.vllm.server_base_url:
        return None
    size = planned.target.dtype(planned.recipe.model).itemsize
    if "--quantization" in ppo.vllm.server_args:
        size = 1
    weights = size * planned.architecture.parameters
    if not planned.on_gpu:
        # vLLM sleeps on GPUs only.
        memory = weights + _CPU_CACHE + LIBRARIES
        return Server(memory, memory, weights, _CPU_CACHE)
    device = planned.target.memory + planned.beside
    memory = int(ppo.vllm.gpu_memory_utilization * device)
    asleep = CUDA_CONTEXT if ppo.vllm.mode == "colocate" else memory
    return Server(memory, asleep, weights, memory - weights - CUDA_CONTEXT)


def beside_server(planned: Planned) -> Planned:
    """Return the plan of PPO on what a server leaves of the device between rollouts."""
    server = server_of(planned)
    if server is None:
        return planned
    device = planned.target.memory + planned.beside
    held = min(device, server.asleep)
    target = replace(planned.target, memory=device - held)
    return replace(planned, target=target, beside=held)


def awake(server: Server) -> Split:
    """Return what a server that sleeps between rollouts takes for one."""
    taken = server.memory - server.asleep
    weights = min(server.weights, taken)
    return Split({"weights": weights, "kv_cache": taken - weights})
