"""Models behind HTTP: one request with JSON, one answer, and what failures mean."""

import json
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx

from services.runtime.errors import RagmeshError

_MAX_ANSWER = 32 * 1024 * 1024
"""Bytes of an answer, past which it is not read on."""
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=30.0)
_REST = 2.0
"""Seconds that a server which could not be reached is not asked again."""


class Meaning(NamedTuple):
    """The class, reason and message of a failure; the server's own text goes no further."""

    kind: type[RagmeshError]
    reason: str
    message: str

    def error(self, retry_after: float | None = None) -> RagmeshError:
        return self.kind(self.reason, self.message, retry_after=retry_after)


class Meanings(NamedTuple):
    """What a server's failures mean."""

    statuses: Mapping[int, Meaning]
    refused: Meaning
    """Any other status below 500."""
    down: Meaning
    """Any other status, and no connection."""
    late: Meaning
    bad: Meaning
    """An answer that cannot be read."""
    long: Meaning
    """A refusal that says how many tokens are too many; the numbers are added to the message."""


_TOO_LONG = tuple(
    re.compile(pattern, re.I | re.S)
    for pattern in (
        # OpenAI, vLLM, LiteLLM
        r"maximum context length (?:is|of) (?P<limit>\d+) tokens.{0,200}?"
        r"(?:requested|resulted in|contains?|has|total of)[^\d]{0,40}(?P<needed>\d+)",
        r"maximum context length (?:is|of) (?P<limit>\d+)",
        # Text Embeddings Inference
        r"must have less than (?P<limit>\d+) tokens\. Given: (?P<needed>\d+)",
        # NIM
        r"input length (?P<needed>\d+) exceeds (?:the )?maximum allowed token size (?P<limit>\d+)",
        # llama.cpp
        r"input \((?P<needed>\d+) tokens\) is (?:too large|larger than).*?size: (?P<limit>\d+)",
    )
)
"""How servers say so, in the messages of a 400, 413 or 422."""
_REFUSED_BODY = 4096
"""Bytes of a refusal that are looked through."""


class RemoteModel:
    """A client of one server. Nothing is retried here."""

    def __init__(
        self,
        meanings: Meanings,
        *,
        api_key: str = "",
        connect_timeout: float = 1.0,
        timeout: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Args:
        meanings: of failures.
        api_key: sent as a bearer token; empty: none.
        connect_timeout: seconds to open a connection.
        timeout: seconds of silence.
        transport: in place of the network, for tests.
        """
        self._meanings = meanings
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            transport=transport or httpx.AsyncHTTPTransport(retries=0, limits=_LIMITS),
            timeout=httpx.Timeout(timeout, connect=connect_timeout),
            follow_redirects=False,
            trust_env=False,  # only settings classes read the environment
        )
        self._unreachable_until = 0.0

    async def aclose(self) -> None:
        await self._client.aclose()

    async def post(self, url: str, body: Mapping[str, Any]) -> Any:
        """The parsed answer.

        Raises:
            RagmeshError: as the meanings say.
        """
        rest = self._unreachable_until - time.monotonic()
        if rest > 0:
            raise self._meanings.down.error(rest)
        try:
            async with self._client.stream("POST", url, json=body) as response:
                data = await self._read(response)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self._unreachable_until = time.monotonic() + _REST
            raise self._meanings.down.error(_REST) from error
        except httpx.TimeoutException as error:
            raise self._meanings.late.error() from error
        except httpx.DecodingError as error:
            raise self._meanings.bad.error() from error
        except httpx.HTTPError as error:
            raise self._meanings.down.error(1.0) from error
        if response.status_code != httpx.codes.OK:
            if response.status_code in (400, 413, 422):
                self._refuse_long(data)
            raise self._meaning(response.status_code).error(_retry_after(response.headers))
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._meanings.bad.error() from error

    async def status(self, url: str) -> int:
        """The status of a GET, whose answer nobody reads.

        Raises:
            RagmeshError: it cannot be reached, or is late.
        """
        try:
            async with self._client.stream("GET", url) as response:
                return response.status_code
        except httpx.TimeoutException as error:
            raise self._meanings.late.error() from error
        except httpx.HTTPError as error:
            raise self._meanings.down.error(1.0) from error

    def _refuse_long(self, data: bytes) -> None:
        text = data[:_REFUSED_BODY].decode("utf-8", "replace")
        for pattern in _TOO_LONG:
            if found := pattern.search(text):
                numbers = found.groupdict()
                needed = f"; this is {numbers['needed']} long" if numbers.get("needed") else ""
                told = f"{self._meanings.long.message} It reads {numbers['limit']} tokens{needed}."
                raise self._meanings.long._replace(message=told).error()

    async def _read(self, response: httpx.Response) -> bytes:
        parts, size = [], 0
        async for block in response.aiter_bytes():
            parts.append(block)
            size += len(block)
            if size > _MAX_ANSWER:
                raise self._meanings.bad.error()
        return b"".join(parts)

    def _meaning(self, status: int) -> Meaning:
        if status in self._meanings.statuses:
            return self._meanings.statuses[status]
        if 400 <= status < 500:
            return self._meanings.refused
        return self._meanings.down if status >= 500 else self._meanings.bad


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or `retry-after` (seconds or a date)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except ValueError:
                continue
        if 0 <= seconds < 86_400:
            return seconds
    return None
