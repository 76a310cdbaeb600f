"""Rollouts sampled by vLLM servers, to which only the policy's adapter is sent.

The adapter is saved and loaded in place before each rollout. Nothing is merged into the base, so
nothing is rounded. Log-probabilities that PPO uses stay those of the training pass; the servers' own
are returned for comparison.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import uuid
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.errors import EnvironmentFault, UsageError
from rlhfctl.models.device import release_cached_memory
from rlhfctl.ppo.engine import Responses
from rlhfctl.recipe.addresses import authorization
from rlhfctl.run.directory import VLLM_LOG_FILE
from rlhfctl.run.vllm_environment import adapter_folder, find_python, vllm_version
from rlhfctl.stages.ppo.vllm_client import (
    Completion,
    EngineDownError,
    Sampling,
    Server,
    complete,
    is_ready,
    load_adapter,
    sleep,
    unload_adapter,
    wake_up,
)
from rlhfctl.stages.ppo.vllm_server import VLLMServer, server_command, server_environment
from rlhfctl.stages.shared.timed_calls import run_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    import httpx2

    from rlhfctl.maths.sampling import Seed
    from rlhfctl.models.roles import Roles
    from rlhfctl.ppo.processes import Processes
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor

_CONCURRENCY = 256
"""Requests in flight per server, as many as vLLM computes at once by default."""


class VLLMEngine:
    """Samples the policy's responses on servers; only within `running`."""

    def __init__(self, recipe: Recipe, roles: Roles, output: Path, monitor: Monitor) -> None:
        """Configure the engine; nothing is started.

        Args:
            recipe: `model`, `lora`, `generation` and `ppo.vllm` are read.
            roles: Their policy is sampled.
            output: Folder for the log of a server that is started.
            monitor: Told of starts and restarts.

        Raises:
            EnvironmentFault: A server is to be started, and there is no environment with vLLM; or
                there is no `adapter_folder`.
            RecipeError: The environment variable of the servers' key is not set.
        """
        self.recipe = recipe
        self.section = recipe.ppo.vllm
        self.roles = roles
        self.monitor = monitor
        self.sampling = Sampling(
            temperature=roles.temperature,
            max_new_tokens=roles.max_new_tokens,
            stop_token_ids=roles.stop_token_ids,
            vocabulary=roles.vocabulary,
            rows=int(roles.models.language_model("policy").config.get_text_config().vocab_size),
        )
        # Of its own per run, since a running server may serve several.
        self.name = f"rlhfctl-{uuid.uuid4().hex[:12]}"
        headers = authorization(self.section.api_key_env, "ppo.vllm")
        self.servers = [
            Server(url.rstrip("/").removesuffix("/v1"), headers=headers)
            for url in self.section.server_base_url
        ]
        self.own: VLLMServer | None = None
        self._log = output / VLLM_LOG_FILE
        self._parent = adapter_folder(self.section.adapter_folder)
        self._folder: Path | None = None
        self._adapter: Path | None = None
        self._python = None if self.servers else find_python(self.section.python)
        self._sleeps = self.section.mode == "colocate"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have servers that are ready within the context.

        Raises:
            EnvironmentFault: A server cannot be started, or a running one does not answer.
        """
        # Readable by this user alone; the short path of a socket may have 100 characters.
        with (
            tempfile.TemporaryDirectory(prefix="rlhfctl-", dir=self._parent) as folder,
            tempfile.TemporaryDirectory(prefix="rlhfctl-") as sockets,
        ):
            self._folder = Path(folder).resolve()
            if self._python is not None:
                version = vllm_version(self._python)
                socket = Path(sockets, "vllm")
                self.own = VLLMServer(
                    server_command(self.recipe, self._python, ["--uds", str(socket)]),
                    server_environment(sleeps=self._sleeps),
                    Server("http://vllm", socket),
                    self._log,
                    self.section.server_timeout,
                )
                self.servers = [self.own.address]
                between = ", which sleeps between rollouts" if self._sleeps else ""
                self.monitor.note(
                    f"starting a vLLM {version} server{between}; its log is {self._log.name}"
                )
            else:
                # A running server reads as another user, perhaps.
                self._folder.chmod(0o755)
            try:
                self._start()
                yield
            finally:
                self._end()

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Seed],
        progress: Callable[[int], None],
    ) -> Responses:
        """Return one response per prompt; if a server fails, restart it once and sample all anew.

        Raises:
            EnvironmentFault: A server refuses, cannot be started again, or fails again.
        """
        try:
            return self._sample(prompts, seeds, progress)
        except EngineDownError as error:
            again = "restarting it" if self.own else "waiting for it"
            self.monitor.warn(f"vLLM failed ({error}); {again}, then sampling the rollout anew")
        self._end_own()
        self._start()
        try:
            return self._sample(prompts, seeds, progress)
        except EngineDownError as error:
            raise EnvironmentFault(
                f"vLLM failed twice within a rollout, the second time with: {error}",
                "ppo.vllm",
                f"See {self._log} for the cause." if self.own else "See the server's log.",
            ) from error

    def _sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Seed],
        progress: Callable[[int], None],
    ) -> Responses:
        self._wake()
        self._send_policy()
        bodies = [
            self.sampling.request(self.name, prompt, _number(seed))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        completions = run_async(self._complete(bodies, progress))
        self._sleep()
        return Responses([c.ids for c in completions], [c.log_probs for c in completions])

    def _send_policy(self) -> None:
        """Save the policy's adapter in a folder of its own, and load it in every server."""
        if self._folder is None:
            raise RuntimeError("sampling outside of `running`")
        folder = self._folder / uuid.uuid4().hex[:12]
        self.roles.models.save_policy(folder)
        seconds = self.section.request_timeout
        run_async(
            self._on_all(
                lambda client, server: load_adapter(client, server, self.name, folder, seconds)
            )
        )
        # A server that has dropped the adapter reads it again, so the present one stays.
        if self._adapter is not None:
            shutil.rmtree(self._adapter)
        self._adapter = folder

    async def _complete(
        self, bodies: Sequence[bytes], progress: Callable[[int], None]
    ) -> list[Completion]:
        """Return the completions in order; neighbours, which may share a prompt, share a server."""
        done = 0

        async def one(number: int, choice: int) -> Completion:
            nonlocal done
            async with slots[choice]:
                completion = await complete(
                    *(
                        clients[choice],
                        self.servers[choice],
                        bodies[number],
                        self.sampling,
                        self.section.request_timeout,
                    )
                )
            done += 1
            progress(done)
            return completion

        slots = [asyncio.Semaphore(_CONCURRENCY) for _ in self.servers]
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(s.client()) for s in self.servers]
            choices = [number * len(clients) // len(bodies) for number in range(len(bodies))]
            tasks = [
                asyncio.ensure_future(one(number, choice)) for number, choice in enumerate(choices)
            ]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _on_all(self, work: Callable[[httpx2.AsyncClient, Server], Awaitable[None]]) -> None:
        async def on_one(server: Server) -> None:
            async with server.client() as client:
                await work(client, server)

        await asyncio.gather(*map(on_one, self.servers))

    def _start(self) -> None:
        """Start the own server, or wait for those that run elsewhere."""
        if self.own is not None:
            release_cached_memory()
            self.own.start()
            # Evaluations and checks may come before the first rollout.
            try:
                self._sleep()
            except EngineDownError as error:
                raise EnvironmentFault(
                    f"vLLM started and could not sleep: {error}",
                    "ppo.vllm.mode: colocate",
                    f"See {self._log} for the cause, or use mode: server.",
                ) from error
        else:
            run_async(self._on_all(self._await_ready))

    def _sleep(self) -> None:
        """In `mode: colocate`, have the server give its GPU memory to training."""
        if self._sleeps:
            seconds = self.section.request_timeout
            run_async(self._on_all(lambda client, server: sleep(client, server, seconds)))

    def _wake(self) -> None:
        """In `mode: colocate`, give the server the GPU memory that training does not hold."""
        if self._sleeps:
            release_cached_memory()
            seconds = self.section.request_timeout
            run_async(self._on_all(lambda client, server: wake_up(client, server, seconds)))

    async def _await_ready(self, client: httpx2.AsyncClient, server: Server) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.section.server_timeout
        while not await is_ready(client, server):
            if loop.time() > deadline:
                raise EnvironmentFault(
                    f"no vLLM server was ready within {self.section.server_timeout:g} seconds",
                    f"ppo.vllm.server_base_url: {server}",
                    "Start it, or correct the address; without one, the run starts its own.",
                )
            await asyncio.sleep(0.5)

    def _end_own(self) -> None:
        if self.own is not None:
            self.own.end()

    def _end(self) -> None:
        """End the own server, or unload the adapter from those that go on running."""
        if self.own is None and self._adapter is not None:
            with suppress(EngineDownError, EnvironmentFault):  # it would keep a few megabytes
                run_async(
                    self._on_all(lambda client, server: unload_adapter(client, server, self.name))
                )
        self._end_own()
        self._adapter = None


def require_one_process(processes: Processes) -> None:
    """Refuse several processes, of which each would send its own adapter.

    Raises:
        UsageError: There are several.
    """
    if processes.count > 1:
        raise UsageError(
            f"ppo.engine: vllm works in one process, and there are {processes.count}",
            "ppo.engine",
            "Start one process and several servers, or use ppo.engine: transformers.",
        )


def _number(seed: Seed) -> int:
    """Return one number for an episode's seed, in the range of vLLM's."""
    return int(np.random.default_rng(seed).integers(2**63))
