"""Client of a reward server."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import httpx2

from rlhfctl.errors import DataError, EnvironmentFault
from rlhfctl.stages.shared.http_post import AnswerError, post

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.recipe.reward_sources import RewardSourceSection

_FAULTS = (httpx2.HTTPError, AnswerError, ValueError, KeyError, TypeError)
_log = logging.getLogger("rlhfctl")


class RewardServer:
    """POST {prompts, completions, completion_ids, columns...} gives {scores}, one per completion."""

    def __init__(self, section: RewardSourceSection) -> None:
        """Store the address, its key, the timeout and the number of attempts.

        Raises:
            RecipeError: The environment variable of the key is not set.
        """
        self.url = section.source
        self.headers = section.authorization("ppo.reward_sources")
        self.name = httpx2.URL(section.source).host
        self.timeout = section.timeout
        self.attempts = section.retries + 1

    async def __call__(self, **arguments: Sequence[Any]) -> Sequence[float]:
        """Request scores; failures are retried after 1, 2, 4, ... seconds.

        Args:
            arguments: Lists of equal length, sent as one JSON object.

        Raises:
            DataError: A column has values that JSON does not have.
            EnvironmentFault: The server is unreachable, fails, or returns no scores.
        """
        body = self._body(arguments)
        async with httpx2.AsyncClient(headers=self.headers, timeout=self.timeout) as client:
            for attempt in range(self.attempts - 1):
                try:
                    return await self._request(client, body)
                except _FAULTS as error:
                    _log.warning("reward server %s: %s; retrying", self.url, error)
                    await asyncio.sleep(2.0**attempt)
            try:
                return await self._request(client, body)
            except _FAULTS as error:
                raise EnvironmentFault(
                    f"the reward server failed {self.attempts} times; last error: "
                    f"{type(error).__name__}: {error}",
                    f"ppo.reward_sources: {self.url}",
                    "It must respond to POST {prompts, completions} with {scores}.",
                ) from error

    def _body(self, arguments: dict[str, Sequence[Any]]) -> bytes:
        parts = []
        for name, values in arguments.items():
            try:
                text = json.dumps(list(values), allow_nan=False)
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"the column {name} cannot be sent to the server as JSON: {error}",
                    f"ppo.reward_sources: {self.url}",
                    "Name the columns that it needs in the source's `columns`.",
                ) from error
            parts.append(f"{json.dumps(name)}: {text}")
        return ("{" + ", ".join(parts) + "}").encode()

    async def _request(self, client: httpx2.AsyncClient, body: bytes) -> Sequence[float]:
        answer = await post(client, self.url, body, self.timeout)
        if not answer.succeeded:
            raise AnswerError(f"it answered {answer.status} {answer.reason}")
        scores: Sequence[float] = answer.json()["scores"]
        return scores
