"""HTTP requests to servers that may be slow, endless or hostile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2

MAX_BYTES = 8 << 20
"""Longest answer of a server, 8 MiB."""


class AnswerError(Exception):
    """A server's answer is too long or takes too long."""


@dataclass(frozen=True)
class Answer:
    """A server's answer.

    Attributes:
        status: HTTP status.
        reason: Its phrase.
        headers: Headers; names in any case.
        body: Content.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def succeeded(self) -> bool:
        """True if the status is 2xx."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            ValueError: It is none.
        """
        return parse_json(self.body)


async def post(client: httpx2.AsyncClient, url: str, body: bytes, seconds: float) -> Answer:
    """Send JSON and return the answer.

    Args:
        client: Client with the headers of the request. It must not follow redirects.
        url: Address.
        body: JSON text.
        seconds: Longest time from the connection to the last byte.

    Raises:
        AnswerError: The answer takes longer, or has more than `MAX_BYTES`.
        httpx2.HTTPError: The server cannot be reached or breaks the protocol.
    """
    return await _request(client, "POST", url, body, seconds)


async def get(client: httpx2.AsyncClient, url: str, seconds: float) -> Answer:
    """Return the answer to a request without content; arguments and errors are those of `post`."""
    return await _request(client, "GET", url, b"", seconds)


async def _request(
    client: httpx2.AsyncClient, method: str, url: str, body: bytes, seconds: float
) -> Answer:
    # A compressed answer could be small on the wire and fill the memory.
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    try:
        async with (
            asyncio.timeout(seconds),
            client.stream(method, url, content=body, headers=headers) as response,
        ):
            return Answer(
                response.status_code,
                response.reason_phrase,
                response.headers,
                await _read(response),
            )
    except TimeoutError as error:
        raise AnswerError(f"no complete answer within {seconds:g} seconds") from error


async def _read(response: httpx2.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > MAX_BYTES:
            raise AnswerError(f"its answer is longer than {MAX_BYTES >> 20} MiB")
        parts.append(part)
    return b"".join(parts)
