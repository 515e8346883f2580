"""A small HTTP/1.1 server on loopback that engines' scripted servers are made of: it remembers what
it was asked, counts what runs and what was aborted, and sends streams piece by piece."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.contract.infer import rig
from tests.contract.infer.rig import Rig


class Failure(NamedTuple):
    """An answer that refuses."""

    status: int
    body: Any
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    query: dict[str, list[str]]


class ScriptedServer(Rig):
    """Subclasses say what their vendor serves: `answer`, and its `failures`."""

    can = rig.WIRE | {rig.NO_USAGE}
    failures: ClassVar[dict[str, Failure]] = {}
    """Behaviour -> the vendor's own answer."""
    content_type: ClassVar[str] = "text/event-stream"
    lead: ClassVar[int] = 1
    """Pieces of a stream that come before the first delta."""

    def __init__(self) -> None:
        self.mode = ""
        self.url = ""
        self.asked: list[Asked] = []
        self.connections = 0
        self._running = 0
        self._aborted = 0
        self._writers: list[asyncio.StreamWriter] = []

    # what a vendor says

    async def answer(self, asked: Asked, reply: Reply) -> None:
        """Answer one request."""
        raise NotImplementedError

    def start(self) -> None:
        """Make `settings`; the address is known now."""
        raise NotImplementedError

    # the rig

    def behave(self, how: str) -> None:
        assert how in self.can, how
        self.mode = how

    @property
    def running(self) -> int:
        return self._running

    @property
    def aborted(self) -> int:
        return self._aborted

    @property
    def generations(self) -> list[dict[str, Any]]:
        """The bodies of what was asked by POST."""
        return [asked.body for asked in self.asked if asked.method == "POST"]

    @property
    def refusal(self) -> Failure | None:
        """What a generation is to be refused with."""
        return self.failures.get(self.mode)

    # the server

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                asked = await _read(reader)
                self.asked.append(asked)
                reply = Reply(self, reader, writer)
                await self.answer(asked, reply)
                if reply.closed:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class Reply:
    """The answer to one request."""

    def __init__(
        self, server: ScriptedServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self.closed = False

    async def send(
        self, status: int, body: Any, headers: dict[str, str] | None = None, kind: str = ""
    ) -> None:
        """A whole answer; what is no text goes as JSON."""
        text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
        data = text.encode()
        lines = [f"HTTP/1.1 {status} X", f"content-type: {kind or 'application/json'}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        lines += [f"content-length: {len(data)}", "", ""]
        self._writer.write("\r\n".join(lines).encode() + data)
        await self._writer.drain()

    async def fail(self, failure: Failure) -> None:
        await self.send(failure.status, failure.body, failure.headers)

    async def raw(self, blocks: Iterable[bytes], kind: str) -> None:
        """Send blocks of bytes up to the connection's end."""
        self._writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\n".encode())
        for block in blocks:
            self._writer.write(block)
            await self._writer.drain()
        self.closed = True

    async def stream(self, pieces: Iterable[str]) -> None:
        """Send the pieces, each as it is, in the way the server was told to behave."""
        server = self._server
        server._running += 1
        gone = asyncio.ensure_future(self._reader.read(1))
        try:
            self._writer.write(
                f"HTTP/1.1 200 OK\r\ncontent-type: {server.content_type}\r\n"
                "transfer-encoding: chunked\r\n\r\n".encode()
            )
            await self._pieces(pieces, gone)
        except ConnectionError:
            server._aborted += 1
            raise
        finally:
            server._running -= 1
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    async def _pieces(self, pieces: Iterable[str], gone: asyncio.Future[bytes]) -> None:
        mode = self._server.mode
        if mode == rig.STALL:
            await self._left(gone)
        if mode == rig.GARBAGE:
            self._chunk(b"data: {not json\n\n")
        for number, piece in enumerate(pieces):
            data = piece.encode()
            if mode == rig.BYTES:
                for i in range(len(data)):
                    self._chunk(data[i : i + 1])
                    await self._writer.drain()
            else:
                self._chunk(data)
                await self._writer.drain()
            if number == self._server.lead and mode == rig.HANG:
                await self._left(gone)
            if number == self._server.lead and mode == rig.CUT:
                break
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    async def _left(self, gone: asyncio.Future[bytes]) -> None:
        await gone
        raise ConnectionResetError

    def _chunk(self, data: bytes) -> None:
        self._writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


@asynccontextmanager
async def running(server: ScriptedServer) -> AsyncIterator[Any]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    server.start()
    try:
        yield server
    finally:
        listener.close()
        for writer in server._writers:
            writer.close()
        await asyncio.sleep(0)


def sse(data: Any) -> str:
    """One event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"data: {text}\n\n"


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = {k.lower(): v for k, _, v in (h.partition(": ") for h in lines if h)}
    if "chunked" in headers.get("transfer-encoding", ""):
        data = await _chunked(reader)
    else:
        data = await reader.readexactly(int(headers.get("content-length", 0)))
    method, target, _ = line.split()
    parts = urlsplit(target)
    body = json.loads(data) if data else {}
    return Asked(method, parts.path, headers, body, parse_qs(parts.query))


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    data = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        data += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return data
