"""OpenAI-compatible chat-completions endpoint as a judge, with retries and a cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import httpx2

from rlhfctl.errors import DataError, EnvironmentFault, RecipeError
from rlhfctl.stages.evaluation.judge_prompts import Reply

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
        """Read the file if it exists; a truncated last line is dropped.

        Raises:
            DataError: Another line is damaged.
        """
        self._path = path
        self._lock = threading.Lock()
        self._replies: dict[str, Reply] = {}
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        for number, line in enumerate(lines[:-1], 1):
            try:
                entry = json.loads(line)
                self._replies[entry["key"]] = Reply(**entry["reply"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    "a cached reply of the judge is damaged",
                    f"{path}:{number}",
                    "Remove this line, or the file: the judge is queried again.",
                ) from error
        if lines and lines[-1]:
            complete = "".join(f"{line}\n" for line in lines[:-1])
            path.write_text(complete, encoding="utf-8")

    def get(self, key: str) -> Reply | None:
        """Return the cached reply, or None."""
        return self._replies.get(key)

    def put(self, key: str, reply: Reply) -> None:
        """Store a reply.

        Raises:
            OSError: The file cannot be written.
        """
        line = json.dumps({"key": key, "reply": asdict(reply)}, ensure_ascii=False)
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
            self._replies[key] = reply


class Endpoint:
    """Client of the judge's server; safe for concurrent requests."""

    def __init__(self, section: JudgeEndpointSection, cache: Path) -> None:
        """Create the client from the recipe's section and the path of the reply cache.

        Raises:
            RecipeError: The environment variable of the API key is not set.
            DataError: The file is damaged.
        """
        self.section = section
        base = section.url.rstrip("/")
        self.url = base if base.endswith("/chat/completions") else f"{base}/chat/completions"
        self._headers: dict[str, str] = {}
        if section.api_key_env is not None:
            key = os.environ.get(section.api_key_env, "").strip()
            if not key:
                raise RecipeError(
                    f"the environment variable {section.api_key_env} is not set",
                    f"{_KEY}.api_key_env",
                    "Set it to the judge's key, or leave api_key_env out for a server without one.",
                )
            self._headers["Authorization"] = f"Bearer {key}"
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
        replies: list[Reply] = []
        with ThreadPoolExecutor(self.section.concurrency) as threads, self._client() as client:
            waiting = [threads.submit(self._reply, client, messages) for messages in requests]
            try:
                for future in waiting:
                    replies.append(future.result())
                    on_reply(len(replies))
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        return replies

    def _client(self) -> httpx2.Client:
        # A redirect could send the key or the texts to another server.
        return httpx2.Client(
            headers=self._headers, timeout=self.section.timeout, follow_redirects=False
        )

    def _reply(self, client: httpx2.Client, messages: Messages) -> Reply:
        section = self.section
        body: dict[str, Any] = {**section.parameters, "model": section.model, "messages": messages}
        key = hashlib.sha256(
            json.dumps([self.url, body], sort_keys=True, ensure_ascii=False).encode()
        ).hexdigest()
        cached = self._answers.get(key)
        if cached is not None:
            return cached
        reply = self._post_with_retries(client, body)
        self._answers.put(key, reply)
        return reply

    def _post_with_retries(self, client: httpx2.Client, body: dict[str, Any]) -> Reply:
        wait, fault = self.section.backoff, ""
        for attempt in range(self.section.retries + 1):
            if attempt:
                _log.warning("judge %s: %s; trying again in %.1f s", self.url, fault, wait)
                time.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            try:
                answer = client.post(self.url, json=body)
            except httpx2.TransportError as error:
                fault = f"{type(error).__name__}: {error}"
                continue
            if answer.status_code == 429 or answer.status_code >= 500:
                fault = f"it answered {answer.status_code}"
                wait = max(wait, _retry_after(answer))
            elif answer.is_success:
                reply = _read(answer)
                if reply is not None:
                    return reply
                fault = "its answer is no chat completion"
            else:
                raise self._failed(f"it answered {answer.status_code} {answer.reason_phrase}")
        raise self._failed(f"{self.section.retries + 1} attempts failed, the last with: {fault}")

    def _failed(self, what: str) -> EnvironmentFault:
        return EnvironmentFault(
            f"the judge cannot be asked: {what}",
            f"{_KEY}: {self.url}",
            "Its replies so far are cached: re-running the command resumes from there.",
        )


def _retry_after(answer: httpx2.Response) -> float:
    """Return the seconds of the Retry-After header, 0 without one."""
    text = answer.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_WAIT) if text.isdecimal() else 0.0


def _read(answer: httpx2.Response) -> Reply | None:
    """Return the reply of a chat completion, or None if it is malformed."""
    try:
        choice = answer.json()["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
    filtered = choice.get("finish_reason") == "content_filter"
    if text is not None and not isinstance(text, str):
        return None
    return Reply(text or "", refused=bool(refusal) or filtered)
