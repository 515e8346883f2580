"""What happens around every HTTP request, as pure ASGI: one object a request, no extra task
but the one that watches for a client that leaves."""

import asyncio
import logging
import time
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from prometheus_client import Counter, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import error_response, too_large
from gateway.exchange import Exchange
from gateway.sse import CUT_KEY, STOPPING
from services.runtime import traces
from services.runtime.context import Caller, new_request_id, request_id_or_none, set_caller
from services.runtime.errors import Internal, RagmeshError
from services.runtime.version import VERSION

log = logging.getLogger("gateway.access")

REQUESTS = Counter("ragmesh_gateway_requests", "HTTP requests.", ["method", "route", "status"])
SECONDS = Histogram(
    "ragmesh_gateway_request_seconds",
    "Time from a request's arrival to the end of its answer, in seconds.",
    ["method", "route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
DISCONNECTS = Counter(
    "ragmesh_gateway_client_disconnects",
    "Requests whose client left before the end of the answer; their work was cancelled.",
    ["route"],
)

VERSION_HEADER = (b"x-ragmesh-version", VERSION.encode("ascii", "replace"))
CLIENT_CLOSED_REQUEST = 499
EXCHANGE_KEY = "ragmesh.exchange"
UNKNOWN_ROUTE = "(unknown)"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def exchange_of(scope: MutableMapping[str, Any]) -> Exchange:
    """The exchange that `RequestFrame` put into the scope."""
    exchange: Exchange = scope[EXCHANGE_KEY]
    return exchange


def route_of(scope: MutableMapping[str, Any]) -> str:
    """The route's template: metrics and logs carry no ids."""
    route = scope.get("route")
    return getattr(route, "path", UNKNOWN_ROUTE)


class RequestFrame:
    """Outermost: request id, version, server-timing, trace, metrics, access log, last resort."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        request_id = request_id_or_none(headers.get(b"x-request-id")) or new_request_id()
        exchange = scope[EXCHANGE_KEY] = Exchange(request_id)
        set_caller(Caller("", "", request_id))
        status = 0

        async def framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_headers(exchange)]
            await send(message)

        token = _attach_trace(headers)
        try:
            await self._app(scope, receive, framed)
        except asyncio.CancelledError:
            # A client that left does not come here: this is a drain whose time is up.
            if not status:
                await error_response(STOPPING)(scope, receive, framed)
            elif last := scope.get(CUT_KEY):
                await framed({"type": "http.response.body", "body": last, "more_body": False})
            else:
                raise  # half an answer is out: the server cuts the connection
        except Exception:
            log.exception("request failed unexpectedly", extra={"route": route_of(scope)})
            if status:
                raise  # half an answer is out: the server cuts the connection
            await error_response(Internal("INTERNAL", "The server failed."))(scope, receive, framed)
        finally:
            if token is not None:
                otel_context.detach(token)
            _record(scope, exchange, CLIENT_CLOSED_REQUEST if exchange.disconnected else status)


class BodyLimit:
    """Refuses a body over the limit, by its announced length or as it comes."""

    def __init__(self, app: ASGIApp, *, json_bytes: int, upload_bytes: int) -> None:
        """Args:
        json_bytes: the limit of every other body.
        upload_bytes: the limit of a body with documents.
        """
        self._app = app
        self._json_bytes = json_bytes
        self._upload_bytes = upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] == "GET":
            await self._app(scope, receive, send)
            return
        uploads = scope["path"].endswith(("/documents", "/import"))
        limit = self._upload_bytes if uploads else self._json_bytes
        announced = next(
            (value for name, value in scope["headers"] if name == b"content-length"), b""
        )
        if announced.isdigit() and int(announced[:20]) > limit:
            await error_response(_body_too_large(limit))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise _body_too_large(limit)
            return message

        await self._app(scope, counted, send)


class CancelOnDisconnect:
    """Cancels a request's work when its client leaves, in plain calls as in streams.

    Once the body has been read, nobody but a streaming answer listens to the connection any
    more; this one does, and cancels the request's task: the cancellation reaches every RPC.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        task = asyncio.current_task()
        watcher: asyncio.Task[None] | None = None
        gone = asyncio.Event()
        answered = False

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()
            if not answered and task is not None:
                exchange.disconnected = True
                task.cancel()

        async def watched() -> Message:
            nonlocal watcher
            if watcher is not None:
                await gone.wait()
                return {"type": "http.disconnect"}
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                watcher = asyncio.create_task(watch())
            elif message["type"] == "http.disconnect":
                exchange.disconnected = True
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                answered = True
            await send(message)

        try:
            await self._app(scope, watched, noted)
        except ClientDisconnect:
            exchange.disconnected = True  # left while its body was on its way
        except asyncio.CancelledError:
            # Ours is a request that nobody waits for; the server's own (a drain) goes on.
            if not exchange.disconnected or task is None or task.uncancel() > 0:
                raise
        finally:
            if exchange.disconnected:
                DISCONNECTS.labels(route_of(scope)).inc()
            if watcher is not None:
                watcher.cancel()
                with suppress(asyncio.CancelledError):
                    await watcher


def _body_too_large(limit: int) -> RagmeshError:
    return too_large("REQUEST_TOO_LARGE", f"The body is larger than {limit} bytes.")


def _headers(exchange: Exchange) -> list[tuple[bytes, bytes]]:
    timings = [*exchange.timings.items(), ("total", exchange.elapsed_ms)]
    shown = ", ".join(f"{hop};dur={ms:.2f}" for hop, ms in timings)
    headers = [
        (b"x-request-id", exchange.request_id.encode("ascii")),
        VERSION_HEADER,
        (b"server-timing", shown.encode("ascii")),
    ]
    told = [*exchange.headers.items(), *traces.inject().items()]
    headers += [(key.encode(), value.encode()) for key, value in told]
    return headers


def _attach_trace(headers: dict[bytes, str]) -> Any:
    """Make the client's trace the current one; None when it sent none."""
    parent = headers.get(b"traceparent")
    if parent is None:
        return None
    carrier = {"traceparent": parent, "tracestate": headers.get(b"tracestate", "")}
    context = traces.extract(carrier)
    if not trace.get_current_span(context).get_span_context().is_valid:
        return None
    return otel_context.attach(context)


def _record(scope: Scope, exchange: Exchange, status: int) -> None:
    route = route_of(scope)
    method = scope["method"] if scope["method"] in METHODS else "OTHER"
    seconds = time.perf_counter() - exchange.started
    REQUESTS.labels(method, route, str(status)).inc()
    SECONDS.labels(method, route).observe(seconds)
    # Probes come every few seconds and would fill the log.
    level = logging.DEBUG if route.startswith("/health") else logging.INFO
    if log.isEnabledFor(level):
        log.log(
            level,
            "request",
            extra={
                "method": method,
                "route": route,
                "status": status,
                "ms": round(seconds * 1000, 2),
            },
        )
