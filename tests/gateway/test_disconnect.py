"""A client that leaves cancels the work at every hop, in streams and in plain calls."""

import asyncio
import json

import pytest

from gateway import sse
from gateway.middleware import DISCONNECTS, RequestFrame
from tests.gateway.conftest import token
from tests.gateway.mesh import delta, finish, started, usage

CHAT = {"messages": [{"role": "user", "content": "Is tea hot?"}]}
QUERY = {"query": "Is tea hot?", "collection": "docs"}


async def send(gateway, path: str, body: dict) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request over a bare connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    payload = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token()}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
    )
    writer.write(head.encode() + payload)
    await writer.drain()
    return reader, writer


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


def disconnects(route: str) -> float:
    return DISCONNECTS.labels(route)._value.get()


async def counted(route: str, before: float) -> None:
    async with asyncio.timeout(5):
        while disconnects(route) == before:  # noqa: ASYNC110 (a metric has no event)
            await asyncio.sleep(0.01)
    assert disconnects(route) == before + 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/query"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("begun", [False, True])
async def test_generation_is_cancelled(gateway, path, stream, begun):
    await gateway.collection()
    pieces = [delta("Tea")] if begun else []
    gateway.mesh.infer.script = [started(), *pieces, asyncio.Event(), finish(), usage()]
    before = disconnects(path)
    body = {**(QUERY if path.endswith("query") else CHAT), "stream": stream}
    reader, writer = await send(gateway, path, body)
    if stream and begun:
        await reader.readuntil(b"Tea")
    await asyncio.wait_for(gateway.mesh.infer.running.wait(), 5)
    assert not gateway.mesh.infer.cancelled.is_set()
    await leave(writer)
    await asyncio.wait_for(gateway.mesh.infer.cancelled.wait(), 5)
    await counted(path, before)


async def test_search_is_cancelled(gateway):
    await gateway.collection()
    gateway.mesh.retrieve.gate = asyncio.Event()
    before = disconnects("/v1/search")
    _, writer = await send(gateway, "/v1/search", QUERY)
    await asyncio.wait_for(gateway.mesh.retrieve.running.wait(), 5)
    await leave(writer)
    await asyncio.wait_for(gateway.mesh.retrieve.cancelled.wait(), 5)
    await counted("/v1/search", before)


async def test_a_client_that_stays_is_not_counted(gateway):
    before = disconnects("/v1/chat/completions")
    for stream in (False, True):
        response = await gateway.post("/v1/chat/completions", {**CHAT, "stream": stream})
        assert response.status_code == 200
    assert disconnects("/v1/chat/completions") == before


async def test_leaving_in_the_middle_of_the_body(gateway):
    before = disconnects("/v1/query")
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        f"POST /v1/query HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token()}\r\n"
        "content-type: application/json\r\ncontent-length: 100\r\n\r\n{".encode()
    )
    await writer.drain()
    await asyncio.sleep(0.1)
    await leave(writer)
    await counted("/v1/query", before)


async def test_a_drain_whose_time_is_up_answers_503():
    waiting = asyncio.Event()
    sent = []

    async def app(scope, receive, send):
        waiting.set()
        await asyncio.Event().wait()

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/query", "headers": []}
    task = asyncio.create_task(RequestFrame(app)(scope, receive, send))
    await waiting.wait()
    task.cancel()  # as uvicorn does
    await task
    start, body = sent
    assert start["status"] == 503
    assert (b"retry-after", b"1") in start["headers"]
    assert json.loads(body["body"])["error"]["code"] == "service_unavailable"


@pytest.mark.parametrize("named", [False, True])
async def test_a_drain_whose_time_is_up_ends_a_stream_with_the_error(named):
    waiting = asyncio.Event()
    sent = []

    async def events():
        yield b"data: {}\n\n"
        waiting.set()
        await asyncio.Event().wait()

    async def app(scope, receive, send):
        answer = await sse.stream(events(), route="/v1/query", keepalive=60, named=named)
        await answer(scope, receive, send)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/query", "headers": []}
    task = asyncio.create_task(RequestFrame(app)(scope, receive, send))
    await waiting.wait()
    task.cancel()  # as uvicorn does
    await task
    last = sent[-1]
    name, _, payload = last["body"].decode().rpartition("data: ")
    assert name == ("event: error\n" if named else "")
    assert json.loads(payload)["error"]["code"] == "service_unavailable"
    assert not last["more_body"]
