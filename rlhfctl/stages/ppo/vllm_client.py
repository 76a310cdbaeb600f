"""Requests to a vLLM server: token ids in; token ids and their log-probabilities out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2

from rlhfctl.errors import EnvironmentFault
from rlhfctl.stages.shared.http_post import Answer, AnswerError, get, post

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

HEALTH_LIMIT = 5.0
"""Longest time of one question whether a server is ready, in seconds."""
_SHOWN = 300
"""Characters of a server's own error that are shown."""


class EngineDownError(Exception):
    """A server has ended, fails, or does not answer in time; it may be restarted."""


@dataclass(frozen=True)
class Server:
    """Address of a server.

    Attributes:
        url: Base address; for a server behind a socket any host.
        socket: Unix socket, which no other user of the machine can reach; None: the network.
        headers: Headers of every request.
    """

    url: str
    socket: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the address for messages."""
        return self.url if self.socket is None else "the run's own server"

    def client(self) -> httpx2.AsyncClient:
        """Return a client for any number of concurrent requests."""
        # A connection per request: the server closes idle ones, perhaps just as one is used again,
        # which could not be told from its end.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        if self.socket is None:
            # A redirect could send the prompts to another server.
            return httpx2.AsyncClient(
                headers=dict(self.headers), timeout=None, limits=limits, follow_redirects=False
            )
        transport = httpx2.AsyncHTTPTransport(uds=str(self.socket), limits=limits)
        return httpx2.AsyncClient(transport=transport, timeout=None, trust_env=False)


@dataclass(frozen=True)
class Sampling:
    """Terms that all requests of a run have in common.

    Attributes:
        temperature: Divisor of the logits.
        max_new_tokens: Longest response, in tokens.
        stop_token_ids: Tokens that end a response; no others do.
        vocabulary: Ids below it can be sampled.
        rows: Rows of the LM head; those from `vocabulary` on are padding.
    """

    temperature: float
    max_new_tokens: int
    stop_token_ids: tuple[int, ...]
    vocabulary: int
    rows: int

    def request(self, model: str, prompt: Sequence[int], seed: int) -> bytes:
        """Return the body of one response's request, as JSON.

        Args:
            model: Name of the adapter.
            prompt: Token ids.
            seed: Seed of the response's random numbers.
        """
        body: dict[str, Any] = {
            "model": model,
            "prompt": list(prompt),
            "seed": seed,
            "temperature": self.temperature,
            "max_tokens": self.max_new_tokens,
            "stop_token_ids": list(self.stop_token_ids),
            # The base's own EOS ends a response only if it is among these.
            "ignore_eos": True,
            "logprobs": 0,
            "return_token_ids": True,
            # Neutral values, so that no default of the server changes the distribution.
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "min_tokens": 0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }
        if self.rows > self.vocabulary:
            body["logit_bias"] = {str(id_): -100.0 for id_ in range(self.vocabulary, self.rows)}
        return json.dumps(body).encode()

    def read(self, answer: Answer) -> Completion:
        """Return the response of an answer to `request`.

        Raises:
            AnswerError: It has none, or one that breaks the request's terms.
        """
        try:
            choice = answer.json()["choices"][0]
            ids, log_probs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
            reason = choice["finish_reason"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise AnswerError("its answer is no completion with token ids and logprobs") from error
        usable = (
            isinstance(ids, list)
            and isinstance(log_probs, list)
            and 0 < len(ids) == len(log_probs) <= self.max_new_tokens
            and all(type(id_) is int and 0 <= id_ < self.vocabulary for id_ in ids)
            and all(isinstance(value, float | int) for value in log_probs)
        )
        if not usable:
            raise AnswerError("its token ids or log-probabilities are not those of a response")
        if ids[-1] not in self.stop_token_ids and len(ids) < self.max_new_tokens:
            raise AnswerError(
                f"a response ended after {len(ids)} of {self.max_new_tokens} tokens without a stop "
                f"token (finish_reason: {reason}); raise the server's --max-model-len"
            )
        return Completion(ids, [float(value) for value in log_probs])


@dataclass(frozen=True)
class Completion:
    """Token ids of a response, and the log-probability of each, in nats."""

    ids: list[int]
    log_probs: list[float]


async def is_ready(client: httpx2.AsyncClient, server: Server) -> bool:
    """Return whether a server answers that it is well."""
    try:
        return (await get(client, f"{server.url}/health", HEALTH_LIMIT)).succeeded
    except (httpx2.HTTPError, AnswerError):
        return False


async def load_adapter(
    client: httpx2.AsyncClient, server: Server, name: str, folder: Path, seconds: float
) -> None:
    """Load an adapter in place of the one of the same name.

    vLLM tells cached states of prompts apart by the adapter's name and path, so that changed weights
    need another path.

    Raises:
        EngineDownError: The server fails.
        EnvironmentFault: It refuses.
    """
    body = {"lora_name": name, "lora_path": str(folder), "load_inplace": True}
    await _send(client, server, "/v1/load_lora_adapter", json.dumps(body).encode(), seconds)


async def unload_adapter(client: httpx2.AsyncClient, server: Server, name: str) -> None:
    """Unload an adapter; raises what `load_adapter` does."""
    body = json.dumps({"lora_name": name}).encode()
    await _send(client, server, "/v1/unload_lora_adapter", body, HEALTH_LIMIT)


async def sleep(client: httpx2.AsyncClient, server: Server, seconds: float) -> None:
    """Let an idle server free its GPU memory: weights to main memory, no KV cache.

    The server needs VLLM_SERVER_DEV_MODE=1. Raises what `load_adapter` does.
    """
    await _send(client, server, "/sleep?level=1", b"", seconds)


async def wake_up(client: httpx2.AsyncClient, server: Server, seconds: float) -> None:
    """Let a server take its GPU memory again; raises what `load_adapter` does."""
    await _send(client, server, "/wake_up", b"", seconds)


async def complete(
    client: httpx2.AsyncClient, server: Server, body: bytes, sampling: Sampling, seconds: float
) -> Completion:
    """Return the response to a request of `Sampling.request`.

    Raises:
        EngineDownError: The server fails.
        EnvironmentFault: It refuses, or its answer cannot be used.
    """
    answer = await _send(client, server, "/v1/completions", body, seconds)
    try:
        return sampling.read(answer)
    except AnswerError as error:
        raise _refused(server, str(error)) from error


async def _send(
    client: httpx2.AsyncClient, server: Server, path: str, body: bytes, seconds: float
) -> Answer:
    try:
        answer = await post(client, f"{server.url}{path}", body, seconds)
    except (httpx2.HTTPError, AnswerError) as error:
        raise EngineDownError(f"{server}: {str(error) or type(error).__name__}") from error
    if answer.succeeded:
        return answer
    what = f"it answered {answer.status} {answer.reason}{_said(answer)}"
    if answer.status >= 500:
        raise EngineDownError(f"{server}: {what}")
    raise _refused(server, what)


def _said(answer: Answer) -> str:
    """Return the error in an answer's body, behind a colon; empty if there is none."""
    try:
        text = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f": {str(text)[:_SHOWN]}"


def _refused(server: Server, what: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"vLLM cannot sample the rollout: {what}",
        f"ppo.vllm: {server}",
        "A running server needs --enable-lora, --max-lora-rank of at least lora.r, "
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and access to ppo.vllm.adapter_folder.",
    )
