"""A small server that speaks OpenAI's protocol on loopback, and remembers what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

MODEL = "tiny"
TEXT = ("こんにちは", "、世界。", " The quick", " brown fox")


@dataclass
class OpenAIServer:
    """Behaves as told; every field may be changed between requests."""

    mode: str = "stream"
    """stream, hang (after the first delta), silent, cut, whole, error, garbage or event_error."""
    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    key: str = ""
    usage: bool = True
    requests: list[dict[str, Any]] = field(default_factory=list)
    running: int = 0
    aborted: int = 0
    connections: int = 0
    url: str = ""
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (h.partition(": ") for h in lines if h)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        path = line.split()[1]
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            return await _send(writer, 401, '{"error":"Unauthorized"}')
        if path == "/v1/models":
            listed = {"data": [{"id": MODEL, "max_model_len": 512, "owned_by": "test"}]}
            return await _send(writer, 200, json.dumps(listed))
        if path not in ("/v1/chat/completions", "/v1/completions"):
            return await _send(writer, 404, '{"detail":"Not Found"}')
        request = json.loads(body)
        self.requests.append({"path": path, "headers": headers, **request})
        if self.mode == "error":
            return await _send(writer, self.status, self.body, self.headers)
        if request["model"] != MODEL:
            error = {"message": "no such model", "type": "NotFoundError", "code": 404}
            return await _send(writer, 404, json.dumps({"error": error}))
        if self.mode == "whole":
            return await _send(writer, 200, json.dumps(_whole()))
        return await self._stream(reader, writer, request)

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: dict[str, Any]
    ) -> bool:
        self.running += 1
        gone = asyncio.ensure_future(reader.read(1))
        try:
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                b"transfer-encoding: chunked\r\n\r\n"
            )
            if self.mode == "garbage":
                _event(writer, "{not json")
            if self.mode == "silent":
                await gone
                raise ConnectionResetError
            chat = request.get("messages") is not None
            for index in range(request.get("n", 1)):
                if chat:
                    _event(writer, _chunk(index, {"role": "assistant", "content": ""}))
                for piece in TEXT:
                    delta = {"content": piece}
                    _event(writer, _chunk(index, delta) if chat else _text(index, piece))
                    await writer.drain()
                    if self.mode == "hang":
                        await gone
                        raise ConnectionResetError
                    if self.mode == "cut":
                        writer.write(b"0\r\n\r\n")
                        return False
                    if self.mode == "event_error":
                        _event(writer, {"error": {"message": "boom", "code": 500}})
                        break
                _event(writer, _chunk(index, {}, "stop") if chat else _text(index, "", "stop"))
            if self.usage:
                usage = {"prompt_tokens": 7, "completion_tokens": 15, "total_tokens": 22}
                _event(writer, {"choices": [], "usage": usage})
            _event(writer, "[DONE]")
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return True
        except ConnectionError:
            self.aborted += 1
            raise
        finally:
            self.running -= 1
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)


@asynccontextmanager
async def openai_server(**state: Any) -> AsyncIterator[OpenAIServer]:
    server = OpenAIServer(**state)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()
        for writer in server.writers:
            writer.close()
        await asyncio.sleep(0)


def _event(writer: asyncio.StreamWriter, data: Any) -> None:
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    block = f"data: {text}\n\n".encode()
    writer.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")


def _chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def _text(index: int, text: str, finish: str | None = None) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": index, "text": text, "finish_reason": finish}]}


def _whole() -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(TEXT)}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 15},
    }


async def _send(
    writer: asyncio.StreamWriter, status: int, body: str, headers: dict[str, str] | None = None
) -> bool:
    data = body.encode()
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json"]
    lines += [f"{k}: {v}" for k, v in (headers or {}).items()]
    lines += [f"content-length: {len(data)}", "", ""]
    writer.write("\r\n".join(lines).encode() + data)
    await writer.drain()
    return True
