"""Server-sent events: an answer that flushes event by event."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import orjson
from prometheus_client import Counter, Gauge
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.errors import error_object
from services.runtime.errors import Internal, RagmeshError, Unavailable

log = logging.getLogger(__name__)

STREAMS = Counter("ragmesh_gateway_streams", "SSE streams by how they ended.", ["route", "end"])
OPEN_STREAMS = Gauge("ragmesh_gateway_streams_open", "SSE streams being sent now.")

DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keep-alive\n\n"
CUT_KEY = "ragmesh.cut"
"""Of an ASGI scope: the bytes that a stream ends with when the gateway has to stop under it."""
STOPPING = Unavailable("SERVICE_UNAVAILABLE", "The gateway is stopping.", retry_after=1.0)


def data(payload: Any) -> bytes:
    """An unnamed event, as OpenAI's clients read it."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def event(name: str, payload: Any) -> bytes:
    """A named event."""
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(payload) + b"\n\n"


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a stream is written."""

    media_type: str
    comment: bytes
    """What says nothing and keeps the connection alive."""
    failure: Callable[[RagmeshError], bytes]
    """The last piece of a stream that fails."""


EVENTS = Spelling("text/event-stream", KEEPALIVE, lambda error: data(error_object(error)))
NAMED_EVENTS = Spelling(
    "text/event-stream", KEEPALIVE, lambda error: event("error", error_object(error))
)
LINES = Spelling(
    "application/x-ndjson", b"\n", lambda error: orjson.dumps(error_object(error)) + b"\n"
)


class EventStream(Response):
    """An SSE answer over events that are already spelled.

    The events' generator is closed on every way out, so a client that leaves cancels what feeds
    it. A comment is sent after `keepalive` seconds of silence.
    """

    def __init__(
        self,
        first: bytes,
        events: AsyncGenerator[bytes, None],
        *,
        route: str,
        keepalive: float,
        spell: Spelling,
    ) -> None:
        super().__init__(
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
            media_type=spell.media_type,
        )
        # An answer of unknown length: uvicorn sends it chunked.
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        self._first = first
        self._events = events
        self._route = route
        self._keepalive = keepalive
        self._spell = spell
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        scope[CUT_KEY] = self._spell.failure(STOPPING)
        end = "cancelled"
        OPEN_STREAMS.inc()
        keepalive = asyncio.create_task(self._keep_alive(send, loop))
        try:
            async with aclosing(self._events) as events:
                await send(
                    {
                        "type": "http.response.start",
                        "status": self.status_code,
                        "headers": self.raw_headers,
                    }
                )
                await send({"type": "http.response.body", "body": self._first, "more_body": True})
                async for chunk in events:
                    self._sent_at = loop.time()
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            end = "complete"
        finally:
            keepalive.cancel()
            with suppress(asyncio.CancelledError):
                await keepalive
            OPEN_STREAMS.dec()
            STREAMS.labels(self._route, end).inc()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _keep_alive(self, send: Send, loop: asyncio.AbstractEventLoop) -> None:
        """Events are written whole, so a comment between two of them never splits one."""
        self._sent_at = loop.time()
        while True:
            quiet = loop.time() - self._sent_at
            if quiet < self._keepalive:
                await asyncio.sleep(self._keepalive - quiet)
                continue
            self._sent_at = loop.time()
            await send(
                {"type": "http.response.body", "body": self._spell.comment, "more_body": True}
            )


async def stream(
    events: AsyncGenerator[bytes, None],
    *,
    route: str,
    keepalive: float,
    named: bool = False,
    lines: bool = False,
) -> EventStream:
    """Await the first event, so that a failure before it still has a status of its own.

    Args:
        events: spelled events; a failure after the first becomes the error object, and the stream
            ends.
        route: the route's template, for metrics.
        keepalive: seconds of silence before a comment.
        named: call that last event ``error``, for streams whose events have names.
        lines: they are lines of JSON and no events; the error object is such a line.

    Raises:
        RagmeshError: what the events raised before the first.
    """
    spell = LINES if lines else NAMED_EVENTS if named else EVENTS
    told = _told(events, spell)
    return EventStream(await anext(told), told, route=route, keepalive=keepalive, spell=spell)


async def _told(
    events: AsyncGenerator[bytes, None], spell: Spelling
) -> AsyncGenerator[bytes, None]:
    started = False
    async with aclosing(events):
        try:
            async for chunk in events:
                started = True
                yield chunk
            return
        except RagmeshError as error:
            if not started:
                raise
            log.info("stream failed", extra={"code": error.code, "reason": error.reason})
            failure = error
        except Exception:
            if not started:
                raise
            log.exception("stream failed unexpectedly")
            failure = Internal("INTERNAL", "The server failed.")
    yield spell.failure(failure)
