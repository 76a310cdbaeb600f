"""The `ppo.vllm` section: servers of vLLM that sample the rollouts, under `ppo.engine: vllm`.

Keys have the names of TRL's GRPOConfig without their `vllm_`, where both have the same setting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rlhfctl.recipe.addresses import address_fault, variable_fault
from rlhfctl.recipe.base import Positive, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.recipe.schema import Recipe


class VLLMSection(Section):
    """Sampling of rollouts by vLLM (`ppo.engine: vllm`)."""

    mode: Literal["server", "colocate"] = Field(
        "server",
        description="`server`: the server holds its memory for the whole run, or runs elsewhere. "
        "`colocate`: the run starts a server on the GPU of training that sleeps between rollouts, its "
        "weights in main memory and its KV cache freed. Either way vLLM is a process of its own.",
    )
    server_base_url: Annotated[
        list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
    ] = Field(
        default_factory=list,
        description="Addresses of running servers, such as http://localhost:8000, which share each "
        "rollout: one, or a list. Empty starts a server with the run and ends it with the run.",
    )
    api_key_env: str | None = Field(
        None,
        description="Name of the environment variable that holds the servers' key; null sends none. "
        "The key itself is never written to any file.",
    )
    adapter_folder: str | None = Field(
        None,
        description="Folder in which the policy's adapter is handed over, by the same path for "
        "rlhfctl and the servers; null uses the system's temporary folder.",
    )
    server_timeout: Positive = Field(
        240.0, description="Longest wait for a server to become ready, in seconds."
    )
    request_timeout: Positive = Field(
        600.0, description="Longest time of one response or one load of the adapter, in seconds."
    )
    python: str | None = Field(
        None,
        description="Python of the environment of the server to start; null uses "
        "build/vllm/bin/python, which `make vllm` makes, or else rlhfctl's own environment.",
    )
    server_args: list[str] = Field(
        default_factory=list,
        description="Further arguments of the server to start, such as "
        "[--tensor-parallel-size, '2'].",
    )
    gpu_memory_utilization: float = Field(
        0.3,
        gt=0.0,
        le=1.0,
        description="Share of a GPU's memory for the server to start; without effect on a CPU.",
    )
    max_mismatch: Positive | None = Field(
        0.1,
        description="Mean absolute difference between the server's log-probabilities of a rollout's "
        "tokens and the policy's own, in nats per token, above which the run ends with exit code 5; "
        "null never does.",
    )
    importance_sampling_clip_max: Positive | None = Field(
        None,
        description="Largest weight of truncated importance sampling (Yao et al. 2025, who use 2): "
        "each token's policy loss is multiplied by the policy's probability over the server's. null "
        "weighs all tokens alike.",
    )

    @model_validator(mode="after")
    def _usable(self) -> Self:
        faults = [variable_fault(self.api_key_env)]
        faults += [address_fault(address, "server_base_url") for address in self.server_base_url]
        if self.mode == "colocate" and self.server_base_url:
            faults.append(
                "mode: colocate starts a server beside training, and server_base_url names running "
                "ones; remove it, or use mode: server"
            )
        if self.server_base_url and (self.python or self.server_args):
            faults.append(
                "python and server_args are for a server to start, and server_base_url names "
                "running ones; remove either"
            )
        if len(set(self.server_base_url)) < len(self.server_base_url):
            faults.append("server_base_url has an address twice; list it once")
        for fault in filter(None, faults):
            raise ValueError(fault)
        return self


def engine_faults(recipe: Recipe) -> Iterator[str]:
    """Yield a sentence per setting of a recipe that `ppo.engine: vllm` cannot have."""
    if recipe.ppo.engine != "vllm":
        return
    section, quantization = recipe.ppo.vllm, recipe.model.quantization
    if recipe.lora is None:
        yield (
            "ppo.engine: vllm sends the server the policy's adapter, and lora: null trains all "
            "weights; give lora, or use ppo.engine: transformers"
        )
    if recipe.model.resize_embeddings:
        yield (
            "ppo.engine: vllm takes no new embedding rows, which model.resize_embeddings adds; use "
            "ppo.engine: transformers"
        )
    starts = not section.server_base_url
    if starts and quantization != "none" and "--quantization" not in section.server_args:
        yield (
            f"model.quantization: {quantization} would differ from the base of the server that "
            "ppo.engine: vllm starts; name its own by ppo.vllm.server_args, as in [--quantization, "
            "bitsandbytes], or use ppo.engine: transformers"
        )
