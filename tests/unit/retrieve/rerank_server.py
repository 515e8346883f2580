"""A small server that reranks by shared words, in the shape of Cohere, vLLM, TEI or a NIM."""

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

MODEL = "overlap"
ROUTES = {
    "cohere": "/v1/rerank",
    "vllm": "/v1/rerank",
    "tei": "/rerank",
    "nim": "/v1/ranking",
}
MOST = {"cohere": 1000, "vllm": 1000, "tei": 32, "nim": 512}
FIELDS = {
    "cohere": {"model", "query", "documents", "top_n"},
    "vllm": {"model", "query", "documents", "top_n", "truncate_prompt_tokens"},
    "tei": {"query", "texts", "truncate", "raw_scores"},
    "nim": {"model", "query", "passages", "truncate"},
}


@dataclass
class RerankServer:
    """Behaves as told; every field may be changed between requests."""

    kind: str = "cohere"
    mode: str = "answer"
    """answer, error, garbage, cut (in the middle of an answer) or silent."""
    status: int = 200
    body: str = "{}"
    """What `error` and `garbage` answer."""
    headers: dict[str, str] = field(default_factory=dict)
    key: str = ""
    health: list[int] = field(default_factory=list)
    """Statuses of a NIM's health route, in turn, the last for good; empty: there is none."""
    health_asked: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """A client was gone before its answer."""
    port: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def route(self) -> str:
        return ROUTES[self.kind]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
        method, path, _ = line.split()
        if method == "GET" and path == "/v1/health/ready" and self.health:
            self.health_asked += 1
            status = self.health.pop(0) if len(self.health) > 1 else self.health[0]
            return await _send(writer, status, '{"object":"health.response","message":"m"}')
        if method != "POST" or path != self.route:
            return await _send(writer, 404, '{"detail":"Not Found"}')
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            return await _send(writer, 401, '{"message":"invalid api token"}')
        request = json.loads(body)
        self.requests.append(request)
        self.asked.set()
        if self.mode in ("error", "garbage"):
            status = self.status if self.mode == "error" else 200
            return await _send(writer, status, self.body, self.headers)
        if self.mode == "silent":
            await reader.read(1)
            self.left.set()
            return False
        answer = json.dumps(self._answer(request))
        if self.mode == "cut":
            opening = f"HTTP/1.1 200 OK\r\ncontent-length: {len(answer)}\r\n\r\n{answer[:9]}"
            writer.write(opening.encode())
            await writer.drain()
            return False
        return await _send(writer, 200, answer)

    def _answer(self, request: dict[str, Any]) -> Any:
        assert set(request) == FIELDS[self.kind], request
        query: Any = request["query"]
        texts: list[str] = request.get("documents") or request.get("texts") or []
        if self.kind == "nim":
            query = query["text"]
            texts = [one["text"] for one in request["passages"]]
        assert 0 < len(texts) <= MOST[self.kind]
        scores = sorted(enumerate(overlap(query, text) for text in texts), key=lambda one: -one[1])
        tokens = len(" ".join(texts).split())
        if self.kind == "tei":
            return [{"index": index, "score": score} for index, score in scores]
        if self.kind == "nim":
            return {"rankings": [{"index": i, "logit": math.log(s / (1 - s))} for i, s in scores]}
        results = [{"index": index, "relevance_score": score} for index, score in scores]
        if self.kind == "vllm":
            return {
                "id": "r",
                "model": MODEL,
                "results": results,
                "usage": {"total_tokens": tokens},
            }
        return {"id": "r", "results": results, "meta": {"tokens": {"input_tokens": tokens}}}


def overlap(query: str, text: str) -> float:
    """Strictly between 0 and 1."""
    words = set(re.findall(r"\w+", query.lower()))
    return (0.5 + len(words & set(re.findall(r"\w+", text.lower())))) / (len(words) + 1)


@asynccontextmanager
async def rerank_server(**state: Any) -> AsyncIterator[RerankServer]:
    async with serving(RerankServer(**state)) as server:
        yield server


Server = TypeVar("Server", bound=RerankServer)


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for writer in server.writers:
            writer.close()
        await asyncio.sleep(0)


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
