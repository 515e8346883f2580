"""A service of bytes with all four kinds of method: the chassis is tested without protos."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc

from services.runtime.context import Caller, current_caller, current_request_id
from services.runtime.errors import NotFound, ResourceExhausted, Unavailable
from services.runtime.traces import inject

NAME = "ragmesh.test.v1.EchoService"
KINDS = ("Unary", "ServerStream", "ClientStream", "BidiStream")


class EchoServicer:
    """Does what the request says and remembers what happened."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.cleaned: Counter[str] = Counter()
        self.callers: list[Caller] = []
        self.running = asyncio.Event()
        self.release = asyncio.Event()
        self.ended = asyncio.Event()

    def clean(self, kind: str) -> None:
        self.cleaned[kind] += 1
        self.ended.set()

    async def act(self, order: bytes, context: Any) -> bytes:
        self.calls[order.decode()] += 1
        match order:
            case b"not-found":
                raise NotFound("ECHO_NOT_FOUND", "木霊がない", field="order", retry_after=0.5)
            case b"grouped":
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.act(b"not-found", context))
            case b"crash":
                raise ValueError("user text 秘密")
            case b"shed":
                raise ResourceExhausted("QUEUE_FULL", "The queue is full.", retry_after=2)
            case b"down":
                raise Unavailable("ENGINE_DOWN", "The engine is down.")
            case b"raw-unavailable":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "foreign")
            case b"who":
                self.callers.append(current_caller())
            case b"request-id":
                return current_request_id().encode()
            case b"trace":
                return inject().get("traceparent", "").encode()
            case b"wait":
                self.running.set()
                await self.release.wait()
        return order

    async def unary(self, request: bytes, context: Any) -> bytes:
        try:
            return await self.act(request, context)
        finally:
            self.clean("Unary")

    async def server_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            yield b"first"
            if request == b"flood":
                self.running.set()
                while True:
                    yield b"x" * 1024
            yield await self.act(request, context)
        finally:
            self.clean("ServerStream")

    async def client_stream(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        try:
            return b"".join([await self.act(request, context) async for request in requests])
        finally:
            self.clean("ClientStream")

    async def bidi_stream(
        self, requests: AsyncIterator[bytes], context: Any
    ) -> AsyncIterator[bytes]:
        try:
            async for request in requests:
                yield await self.act(request, context)
        finally:
            self.clean("BidiStream")


def add_to_server(servicer: EchoServicer, server: grpc.aio.Server) -> None:
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Unary": grpc.unary_unary_rpc_method_handler(servicer.unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(servicer.server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(servicer.client_stream),
        "BidiStream": grpc.stream_stream_rpc_method_handler(servicer.bidi_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))


def start(channel: Any, kind: str, order: bytes, **options: Any) -> Any:
    """Start a call of a kind with one request; awaitable or iterable as its kind is."""

    async def orders() -> AsyncIterator[bytes]:
        yield order

    path = f"/{NAME}/{kind}"
    match kind:
        case "Unary":
            return channel.unary_unary(path)(order, **options)
        case "ServerStream":
            return channel.unary_stream(path)(order, **options)
        case "ClientStream":
            return channel.stream_unary(path)(orders(), **options)
        case _:
            return channel.stream_stream(path)(orders(), **options)


async def finish(call: Any, kind: str) -> list[bytes]:
    """All responses of a call."""
    if kind in {"Unary", "ClientStream"}:
        return [await call]
    return [response async for response in call]


async def send(channel: Any, kind: str, order: bytes, **options: Any) -> list[bytes]:
    return await finish(start(channel, kind, order, **options), kind)
