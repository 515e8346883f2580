"""``python -m bench.relay_server raw|sse PORT MESSAGES``: the servers of the bench `relay`."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from ragmesh.infer.v1 import infer_pb2 as pb
from ragmesh.infer.v1 import infer_pb2_grpc
from ragmesh.type.v1 import chat_pb2

WORD = " word"
_FLUSH = 16
"""Events between two waits for the socket to take them."""


class Bare(infer_pb2_grpc.InferServiceServicer):
    """Streams messages that it has ready."""

    def __init__(self, messages: int) -> None:
        delta = pb.GenerateResponse(delta=pb.Delta(text=WORD))
        self._responses = [
            pb.GenerateResponse(started=pb.Started(model="m")),
            *[delta] * messages,
            pb.GenerateResponse(finish=pb.Finish(reason=pb.FINISH_REASON_STOP)),
            pb.GenerateResponse(usage=chat_pb2.Usage(prompt_tokens=1, completion_tokens=messages)),
        ]

    async def Generate(
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[pb.GenerateResponse]:
        for response in self._responses:
            yield response

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse()

    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Any
    ) -> pb.GetServerInfoResponse:
        return pb.GetServerInfoResponse()


class Events(asyncio.Protocol):
    """A server of OpenAI's protocol that knows one answer: an HTTP chunk and a write an event."""

    def __init__(self, messages: int) -> None:
        self._chunk = _event(_chunk({"content": WORD}))
        self._head = _event(_chunk({"role": "assistant", "content": ""}))
        usage = {"prompt_tokens": 1, "completion_tokens": messages}
        self._end = (
            _event(_chunk({}, "stop"))
            + _event({"choices": [], "usage": usage})
            + _event("[DONE]")
            + b"0\r\n\r\n"
        )
        self._messages = messages
        self._received = b""
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = next(
            (
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            ),
            0,
        )
        if len(body) < length:
            return
        self._received = b""
        if head.startswith(b"GET"):
            listed = json.dumps({"data": [{"id": "m", "max_model_len": 8192}]}).encode()
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
                + str(len(listed)).encode()
                + b"\r\n\r\n"
                + listed
            )
        else:
            self._task = asyncio.ensure_future(self._stream())

    async def _stream(self) -> None:
        write = self._transport.write
        write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n" + self._head
        )
        for number in range(self._messages):
            write(self._chunk)
            if number % _FLUSH == 0:
                await asyncio.sleep(0)
                await self._writable.wait()
        write(self._end)


def _chunk(delta: Any, finish: str | None = None) -> Any:
    return {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1_764_000_000,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }


def _event(data: Any) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    block = f"data: {text}\n\n".encode()
    return f"{len(block):x}\r\n".encode() + block + b"\r\n"


async def main(kind: str, port: int, messages: int) -> None:
    if kind == "raw":
        server = grpc.aio.server()
        infer_pb2_grpc.add_InferServiceServicer_to_server(Bare(messages), server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()
    else:
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: Events(messages), "127.0.0.1", port)
        await listener.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
