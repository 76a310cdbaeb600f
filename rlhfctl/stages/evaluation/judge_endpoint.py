"""OpenAI-compatible chat-completions endpoint as a judge, with retries and a cache."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import httpx2

from rlhfctl.errors import DataError, EnvironmentFault
from rlhfctl.json_text import parse_json
from rlhfctl.recipe.addresses import authorization
from rlhfctl.run.files import write_atomic
from rlhfctl.stages.evaluation.judge_prompts import Reply
from rlhfctl.stages.shared.http_post import Answer, AnswerError, post
from rlhfctl.stages.shared.timed_calls import run_async

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rlhfctl.recipe.judges import JudgeEndpointSection
    from rlhfctl.stages.evaluation.judge_prompts import Messages

_KEY = "evaluation.judge_endpoint"
_LONGEST_WAIT = 60.0
_log = logging.getLogger("rlhfctl")


class Answers:
    """Cache of replies: a JSON lines file keyed by server, model, parameters and messages."""

    def __init__(self, path: Path) -> None:
        """Read the file if it exists; a truncated last line is dropped, perhaps within a character.

        Raises:
            DataError: Another line is damaged.
        """
        self._path = path
        self._replies: dict[str, Reply] = {}
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
        for number, line in enumerate(lines[:-1], 1):
            try:
                entry = parse_json(line)
                self._replies[_text(entry["key"])] = Reply(
                    _text(entry["reply"]["text"]), refused=entry["reply"]["refused"] is True
                )
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    "a cached reply of the judge is damaged",
                    f"{path}:{number}",
                    "Remove this line, or the file: the judge is queried again.",
                ) from error
        if lines[-1]:
            _log.warning("%s: the last line was cut short and is left out", path)
            write_atomic(path, b"".join(line + b"\n" for line in lines[:-1]))

    def get(self, key: str) -> Reply | None:
        """Return the cached reply, or None."""
        return self._replies.get(key)

    def put(self, key: str, reply: Reply) -> None:
        """Store a reply.

        Raises:
            OSError: The file cannot be written.
        """
        line = json.dumps({"key": key, "reply": asdict(reply)}, ensure_ascii=False)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
            self._replies[key] = reply


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


class Endpoint:
    """Client of the judge's server."""

    def __init__(self, section: JudgeEndpointSection, cache: Path) -> None:
        """Create the client from the recipe's section and the path of the reply cache.

        Raises:
            RecipeError: The environment variable of the API key is not set.
            DataError: The file is damaged.
        """
        self.section = section
        base = section.url.rstrip("/")
        self.url = base if base.endswith("/chat/completions") else f"{base}/chat/completions"
        self._headers = authorization(section.api_key_env, _KEY)
        self._answers = Answers(cache)

    def ask(self, requests: Sequence[Messages], on_reply: Callable[[int], None]) -> list[Reply]:
        """Return one reply per request, with at most `concurrency` requests in flight.

        Args:
            requests: Messages per request.
            on_reply: Called with the number of replies so far.

        Raises:
            EnvironmentFault: The server is unreachable, refuses, or keeps failing; earlier replies
                stay cached.
        """
        return run_async(self._ask(requests, on_reply))

    async def _ask(
        self, requests: Sequence[Messages], on_reply: Callable[[int], None]
    ) -> list[Reply]:
        slots = asyncio.Semaphore(self.section.concurrency)
        replies: list[Reply] = []
        async with self._client() as client:
            waiting = [
                asyncio.ensure_future(self._reply(client, messages, slots)) for messages in requests
            ]
            try:
                for future in waiting:
                    replies.append(await future)
                    on_reply(len(replies))
            finally:
                for future in waiting:
                    future.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
        return replies

    def _client(self) -> httpx2.AsyncClient:
        # A redirect could send the key or the texts to another server.
        return httpx2.AsyncClient(
            headers=self._headers, timeout=self.section.timeout, follow_redirects=False
        )

    async def _reply(
        self, client: httpx2.AsyncClient, messages: Messages, slots: asyncio.Semaphore
    ) -> Reply:
        section = self.section
        body: dict[str, Any] = {**section.parameters, "model": section.model, "messages": messages}
        key = hashlib.sha256(
            json.dumps([self.url, body], sort_keys=True, ensure_ascii=False).encode()
        ).hexdigest()
        async with slots:
            cached = self._answers.get(key)
            if cached is not None:
                return cached
            reply = await self._post_with_retries(client, json.dumps(body).encode())
            self._answers.put(key, reply)
            return reply

    async def _post_with_retries(self, client: httpx2.AsyncClient, body: bytes) -> Reply:
        wait, fault = self.section.backoff, ""
        for attempt in range(self.section.retries + 1):
            if attempt:
                _log.warning("judge %s: %s; trying again in %.1f s", self.url, fault, wait)
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            try:
                answer = await post(client, self.url, body, self.section.timeout)
            except (httpx2.TransportError, AnswerError) as error:
                fault = f"{type(error).__name__}: {error}"
                continue
            if answer.status == 429 or answer.status >= 500:
                fault = f"it answered {answer.status}"
                wait = max(wait, _retry_after(answer))
            elif answer.succeeded:
                reply = read_answer(answer)
                if reply is not None:
                    return reply
                fault = "its answer is no chat completion"
            else:
                raise self._failed(f"it answered {answer.status} {answer.reason}")
        raise self._failed(f"{self.section.retries + 1} attempts failed, the last with: {fault}")

    def _failed(self, what: str) -> EnvironmentFault:
        return EnvironmentFault(
            f"the judge cannot be asked: {what}",
            f"{_KEY}: {self.url}",
            "Its replies so far are cached: re-running the command resumes from there.",
        )


def _retry_after(answer: Answer) -> float:
    """Return the seconds of the Retry-After header, 0 without one."""
    text = answer.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_WAIT) if text.isdecimal() else 0.0


def read_answer(answer: Answer) -> Reply | None:
    """Return the reply of a chat completion, or None if it is malformed."""
    try:
        choice = answer.json()["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
        filtered = choice.get("finish_reason") == "content_filter"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
    if text is not None and not isinstance(text, str):
        return None
    return Reply(text or "", refused=bool(refusal) or filtered)
