"""Any server that speaks OpenAI's protocol: vLLM, NIM, OpenAI and the many others."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

import httpx

from services.infer.adapters.openai_body import body_of, events_of
from services.infer.adapters.openai_errors import (
    BAD,
    DOWN,
    LATE,
    NO_MODEL,
    WRONG_ADDRESS,
    error_of,
    failure,
)
from services.infer.ports import (
    Capabilities,
    EngineEvent,
    Finish,
    GenerateRequest,
    ModelInfo,
    Task,
    Usage,
)
from services.infer.settings import InferSettings
from services.infer.tokens import estimate_tokens
from services.runtime.errors import RagmeshError

_LISTING_AGE = 60.0
"""Seconds that a list of models is believed."""
_READY_AGE = 3.0
"""Seconds that a failure is, and that a server counts as alive without being asked."""
_LISTING_TIMEOUT = 5.0
_MAX_LINE = 8 * 1024 * 1024
"""Characters of one event, past which an answer is not read on."""
_MAX_ERROR = 64 * 1024
_DONE = "[DONE]"
_DRAIN = 0.2
"""Seconds that a server may take to end its stream after ``[DONE]``."""


class OpenAIEngine:
    """A streaming client. One connection pool; nothing is retried here."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str = "",
        connect_timeout: float = 5.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Args:
        base_url: where ``/chat/completions`` lies, such as ``http://host:8000/v1``.
        api_key: sent as a bearer token; empty: none.
        connect_timeout: seconds to open a connection.
        transport: in place of the network, for tests.
        """
        self._connect_timeout = connect_timeout
        self._client = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            transport=transport or httpx.AsyncHTTPTransport(retries=0, limits=_LIMITS),
            timeout=httpx.Timeout(None, connect=connect_timeout),
            follow_redirects=False,
            trust_env=False,  # only settings classes read the environment
        )
        self._listing: tuple[float, Sequence[ModelInfo] | RagmeshError] | None = None
        self._listing_lock = asyncio.Lock()

    @classmethod
    def from_settings(cls, provider: str, settings: InferSettings) -> "OpenAIEngine":
        url, key = settings.server_of(provider)
        return cls(url, api_key=key, connect_timeout=settings.connect_timeout)

    def capabilities(self) -> Capabilities:
        # Whether a model calls tools or reads images is the server's to say; it refuses clearly.
        return Capabilities(
            tools=True,
            json_object=True,
            json_schema=True,
            logprobs=True,
            multiple_choices=True,
            vision=True,
            seed=True,
        )

    async def models(self) -> Sequence[ModelInfo]:
        try:
            return await self._listed(_LISTING_AGE)
        except RagmeshError:
            return ()

    async def ready(self) -> None:
        await self._listed(_READY_AGE)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        route = "completions" if request.task is Task.COMPLETE else "chat/completions"
        timeout = httpx.Timeout(request.timeout, connect=self._connect_before(request.timeout))
        usage: Usage | None = None
        finishes: dict[int, Finish] = {}
        said = 0
        try:
            async with self._client.stream(
                "POST", route, json=body_of(request), timeout=timeout
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise error_of(
                        response.status_code, await _error_body(response), response.headers
                    )
                async with aclosing(_chunks(response)) as chunks:
                    async for chunk in chunks:
                        for event in _events(chunk):
                            if isinstance(event, Usage):
                                usage = event
                            elif isinstance(event, Finish):
                                finishes[event.index] = event
                            else:
                                said += estimate_tokens(event.text)
                                yield event
        except httpx.HTTPError as error:
            raise _network_error(error) from error
        if len(finishes) < request.n:
            raise failure(DOWN)  # the server closed the stream without saying that it was done
        for index in sorted(finishes):
            yield finishes[index]
        yield usage or Usage(_prompt_tokens(request), said, estimated=True)

    async def _listed(self, age: float) -> Sequence[ModelInfo]:
        """The server's models, from memory when they are at most `age` seconds old.

        Raises:
            RagmeshError: the server does not list them.
        """
        async with self._listing_lock:
            clock = asyncio.get_running_loop().time
            if self._listing and isinstance(self._listing[1], RagmeshError):
                age = min(age, _READY_AGE)
            if self._listing is None or clock() - self._listing[0] > age:
                outcome = await self._list()
                self._listing = (clock(), outcome)
            listed = self._listing[1]
        if isinstance(listed, RagmeshError):
            raise listed
        return listed

    async def _list(self) -> Sequence[ModelInfo] | RagmeshError:
        timeout = httpx.Timeout(_LISTING_TIMEOUT, connect=self._connect_before(_LISTING_TIMEOUT))
        try:
            response = await self._client.get("models", timeout=timeout)
        except httpx.HTTPError as error:
            return _network_error(error)
        if response.status_code != httpx.codes.OK:
            refusal = error_of(response.status_code, response.content, response.headers)
            return failure(WRONG_ADDRESS) if refusal.reason == NO_MODEL.reason else refusal
        try:
            return [
                ModelInfo(
                    item["id"],
                    int(item.get("max_model_len") or item.get("context_length") or 0),
                    item.get("owned_by") or "",
                )
                for item in response.json()["data"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            return failure(BAD)

    def _connect_before(self, timeout: float | None) -> float:
        return self._connect_timeout if timeout is None else min(self._connect_timeout, timeout)


_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=30.0)


async def _chunks(response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
    """The JSON objects of an SSE stream up to ``[DONE]``.

    Raises:
        RagmeshError: an error event, or something that is no such stream.
    """
    async with aclosing(_data(response)) as events:
        async for data in events:
            if data == _DONE:
                # Read to the very end, so that the connection can be used again.
                with suppress(TimeoutError):
                    async with asyncio.timeout(_DRAIN):
                        async for _ in events:
                            pass
                return
            try:
                chunk = json.loads(data)
            except (ValueError, RecursionError) as error:
                raise failure(BAD) from error
            if not isinstance(chunk, dict):
                raise failure(BAD)
            if chunk.get("error"):
                raise error_of(httpx.codes.OK, data)
            yield chunk


async def _data(response: httpx.Response) -> AsyncGenerator[str, None]:
    """The data of each server-sent event. A JSON answer is one event: servers that do not
    stream send that, and some send errors so."""
    if response.headers.get("content-type", "").startswith("application/json"):
        yield (await response.aread()).decode(errors="replace")
        return
    parts: list[str] = []
    async with aclosing(_lines(response)) as lines:
        async for line in lines:
            if not line:
                if parts:
                    yield "\n".join(parts)
                    parts.clear()
            elif line.startswith("data:"):
                parts.append(line[5:].removeprefix(" "))
    if parts:  # servers that end without the last empty line
        yield "\n".join(parts)


async def _lines(response: httpx.Response) -> AsyncGenerator[str, None]:
    """Lines ended by LF or CRLF only, as SSE has them: `httpx` would also split at U+2028."""
    rest = b""
    async for block in response.aiter_bytes():
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode(errors="replace")
        if len(rest) > _MAX_LINE:
            raise failure(BAD)
    if rest:
        yield rest.removesuffix(b"\r").decode(errors="replace")


def _events(chunk: dict[str, Any]) -> list[EngineEvent]:
    """The chunk's events; a whole message, from a server that does not stream, counts too."""
    for choice in chunk.get("choices") or ():
        if isinstance(choice, dict) and "message" in choice and "delta" not in choice:
            message = choice["message"] or {}
            calls = message.get("tool_calls") or ()
            numbered = [{"index": i, **call} for i, call in enumerate(calls)]
            choice["delta"] = {**message, "tool_calls": numbered}
    try:
        return list(events_of(chunk))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise failure(BAD) from error


async def _error_body(response: httpx.Response) -> bytes:
    body = b""
    async for block in response.aiter_bytes():
        body += block
        if len(body) > _MAX_ERROR:
            break
    return body


def _network_error(error: httpx.HTTPError) -> RagmeshError:
    if isinstance(error, httpx.ConnectTimeout):
        return failure(DOWN, retry_after=1.0)
    if isinstance(error, httpx.TimeoutException):
        return failure(LATE)
    if isinstance(error, httpx.DecodingError):
        return failure(BAD)
    return failure(DOWN, retry_after=1.0)


def _prompt_tokens(request: GenerateRequest) -> int:
    return estimate_tokens(request.text) + sum(estimate_tokens(m.text) for m in request.messages)
