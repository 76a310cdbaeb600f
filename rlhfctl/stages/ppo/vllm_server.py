"""A vLLM server that the run starts, watches and ends."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from rlhfctl.errors import EnvironmentFault
from rlhfctl.models.device import device, effective_dtype
from rlhfctl.models.hub import model_source
from rlhfctl.run.guardian import GRACE_PERIOD, guarded
from rlhfctl.stages.ppo.vllm_client import is_ready
from rlhfctl.stages.shared.timed_calls import run_async

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.stages.ppo.vllm_client import Server

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM 0.32 takes for --max-lora-rank."""
_POLL = 0.5  # seconds
_TAIL = 15
"""Lines of the server's log that an error shows."""


def server_command(recipe: Recipe, python: Path, place: Sequence[str]) -> list[str]:
    """Return the command of a server with the recipe's base, for adapters of its rank.

    Args:
        recipe: `model`, `lora`, `generation` and `ppo.vllm` are read.
        python: Python of an environment with vLLM.
        place: Arguments that say where it listens.

    Raises:
        EnvironmentFault: The rank is beyond vLLM's largest.
    """
    model, section = recipe.model, recipe.ppo.vllm
    length = recipe.generation.max_prompt_length + recipe.generation.max_new_tokens
    # Under device cpu vLLM sets memory aside by VLLM_CPU_KVCACHE_SPACE, and compiling takes minutes.
    on_cpu = device().type == "cpu"
    memory = ["--gpu-memory-utilization", f"{section.gpu_memory_utilization:g}"]
    memory += ["--enable-sleep-mode"] if section.mode == "colocate" else []
    return [
        # `python -m vllm...cli.main` asks for a distribution named vllm, which vllm-cpu is not.
        *(str(python), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", model_source(model), *place),
        *(["--revision", model.revision] if model.revision else []),
        *(["--trust-remote-code"] if model.trust_remote_code else []),
        *("--dtype", str(effective_dtype(model)).removeprefix("torch.")),
        *("--max-model-len", str(length), "--seed", str(recipe.seed)),
        *("--enable-lora", "--max-loras", "1", "--max-lora-rank", str(_rank(recipe))),
        # Without it the base's own top_p and penalties would apply.
        *("--generation-config", "vllm"),
        # After temperature, as the policy's own log-probabilities are.
        *("--logprobs-mode", "processed_logprobs"),
        "--disable-uvicorn-access-log",
        # With seeds and prompts computed in parts, vLLM 0.32's CPU engine dies: "CPU Generator does
        # not use offset".
        *(["--enforce-eager", "--no-enable-chunked-prefill"] if on_cpu else memory),
        *section.server_args,
    ]


def _rank(recipe: Recipe) -> int:
    rank = recipe.lora.r if recipe.lora is not None else 1
    for largest in _RANKS:
        if rank <= largest:
            return largest
    raise EnvironmentFault(
        f"vLLM takes adapters of rank {_RANKS[-1]} at most, and lora.r is {rank}",
        "ppo.engine",
        "Use ppo.engine: transformers.",
    )


def server_environment(*, sleeps: bool = False) -> dict[str, str]:
    """Return the environment variables of a server; what the user has set takes precedence.

    Args:
        sleeps: Whether it is asked to sleep, an endpoint that vLLM has for development.
    """
    environment = {"VLLM_NO_USAGE_STATS": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    environment |= {"VLLM_SERVER_DEV_MODE": "1"} if sleeps else {}
    if device().type == "cpu":
        # 1 GiB of cached keys and values, and no binding to cores that training uses too.
        environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return environment | os.environ


class VLLMServer:
    """A server process, which ends with this one however this one ends.

    Attributes:
        address: Where it listens.
    """

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        address: Server,
        log: Path,
        limit: float,
    ) -> None:
        """Store what to start.

        Args:
            command: The server's command.
            environment: Its environment variables.
            address: Where it listens.
            log: File that its output is appended to.
            limit: Longest wait for it to become ready, in seconds.
        """
        self.command = command
        self.environment = environment
        self.log = log
        self.limit = limit
        self.address = address
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            EnvironmentFault: It ends, or takes longer than the limit.
        """
        if self.address.socket is not None:
            self.address.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                guarded(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends the server
            )
        deadline = time.monotonic() + self.limit
        while not run_async(self._ready()):
            if (code := self._process.poll()) is not None:
                raise self._failed(f"ended with code {code} before it was ready")
            if time.monotonic() > deadline:
                self.end()
                raise self._failed(f"was not ready within {self.limit:g} seconds")
            time.sleep(_POLL)

    async def _ready(self) -> bool:
        async with self.address.client() as client:
            return await is_ready(client, self.address)

    def end(self) -> None:
        """End the process and all that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(2 * GRACE_PERIOD)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _failed(self, what: str) -> EnvironmentFault:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return EnvironmentFault(
            f"the vLLM server {what}:\n" + "\n".join(lines[-_TAIL:]),
            str(self.log),
            "Raise ppo.vllm.server_timeout if it was only slow; else its log has the cause.",
        )
