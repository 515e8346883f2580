"""Ollama's server, to https://github.com/ollama/ollama/blob/main/docs/api.md and what 0.34 answers
to prompts that are too long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import SecretStr

from services.infer.adapters.ollama import OllamaSettings
from tests.contract.infer import rig
from tests.contract.infer.scripted_http import Asked, Failure, Reply, ScriptedServer
from tests.contract.infer.servers.openai import COMPLETION_TOKENS, KEY, MODEL, PROMPT_TOKENS, TEXT

OTHER = "other"


def line(**item: Any) -> str:
    return json.dumps({"created_at": "2026-11-25T00:00:00Z", **item}, ensure_ascii=False) + "\n"


class OllamaServer(ScriptedServer):
    """Ollama with two models, of which it remembers what is loaded."""

    stands_in = "a scripted server of Ollama's API"
    text = "".join(TEXT)
    content_type = "application/x-ndjson"
    lead = 0
    rate_limit_delay = None
    failures: ClassVar[dict[str, Failure]] = {
        rig.CONTEXT: Failure(
            400,
            {
                "error": "the prompt is longer than the context length currently available to the "
                "model: request (513 tokens) exceeds the available context size (512 tokens)"
            },
        ),
        # Behind a proxy, as Ollama itself limits nothing and knows no keys.
        rig.RATE: Failure(429, {"error": "too many requests"}),
        rig.AUTH: Failure(401, {"error": "unauthorized"}),
        rig.OVERLOAD: Failure(
            503, {"error": "server busy, please try again. maximum pending requests exceeded"}
        ),
        rig.DOWN: Failure(500, {"error": "llama runner process has terminated: exit status 2"}),
    }

    def __init__(self) -> None:
        super().__init__()
        self.loaded: set[str] = set()

    def start(self) -> None:
        self.settings = OllamaSettings(url=self.url, api_key=SecretStr(KEY), keep_alive="10m")

    async def answer(self, asked: Asked, reply: Reply) -> None:
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            return await reply.fail(self.failures[rig.AUTH])
        if asked.path == "/api/version":
            if self.refusal:
                return await reply.fail(self.refusal)
            return await reply.send(200, {"version": "0.34.0"})
        if asked.path == "/api/tags":
            models = [{"name": name, "model": name} for name in (MODEL, OTHER)]
            return await reply.send(200, {"models": models})
        if asked.path == "/api/pull":
            return await self.pull(asked.body, reply)
        if asked.path not in ("/api/chat", "/api/generate"):
            return await reply.send(404, "404 page not found", kind="text/plain")
        return await self.generate(asked, reply)

    async def generate(self, asked: Asked, reply: Reply) -> None:
        body = asked.body
        model = body["model"]
        if model not in (MODEL, OTHER):
            return await reply.send(404, {"error": f"model '{model}' not found"})
        if asked.path == "/api/generate" and "prompt" not in body:
            if body.get("keep_alive") == 0:
                self.loaded.discard(model)
            else:
                self.loaded.add(model)
            return await reply.send(200, {"model": model, "response": "", "done": True})
        if self.refusal:
            return await reply.fail(self.refusal)
        assert body["truncate"] is False
        assert body["shift"] is False
        assert body["keep_alive"] == "10m"
        known = {"temperature", "top_p", "top_k", "seed", "num_predict", "stop", "num_ctx"}
        unknown = body["options"].keys() - known - {"presence_penalty", "frequency_penalty"}
        if unknown:
            return await reply.send(400, {"error": f"invalid options: {min(unknown)}"})
        self.loaded.add(model)
        await reply.stream(self.lines(asked.path, body))

    def lines(self, path: str, body: dict[str, Any]) -> Iterator[str]:
        chat = path == "/api/chat"
        if body.get("tools"):
            name = body["tools"][0]["function"]["name"]
            call = {"function": {"name": name, "arguments": {"city": "東京"}}}
            message = {"role": "assistant", "content": "", "tool_calls": [call]}
            yield line(model=MODEL, message=message, done=False)
        else:
            pieces = ('{"answer": ', '"日本語"}') if body.get("format") else TEXT
            for piece in pieces:
                said = (
                    {"message": {"role": "assistant", "content": piece}}
                    if chat
                    else {"response": piece}
                )
                yield line(model=MODEL, done=False, **said, **logprobs(body, piece))
        counts = {"prompt_eval_count": PROMPT_TOKENS, "eval_count": COMPLETION_TOKENS}
        last = {"message": {"role": "assistant", "content": ""}} if chat else {"response": ""}
        yield line(
            model=MODEL,
            **last,
            done=True,
            done_reason="stop",
            **({} if self.mode == rig.NO_USAGE else counts),
        )

    async def pull(self, body: dict[str, Any], reply: Reply) -> None:
        if body["model"] not in (MODEL, OTHER):
            steps = [
                line(status="pulling manifest"),
                line(error="pull model manifest: file does not exist"),
            ]
        else:
            steps = [
                line(status="pulling manifest"),
                line(status="pulling 8eeb52dfb3bb", total=100, completed=50),
                line(status="pulling 8eeb52dfb3bb", total=100, completed=100),
                line(status="success"),
            ]
        await reply.raw((step.encode() for step in steps), self.content_type)
        reply.closed = True


def logprobs(body: dict[str, Any], piece: str) -> dict[str, Any]:
    if not body.get("logprobs"):
        return {}
    token = {"token": piece, "logprob": -0.5, "bytes": list(piece.encode())}
    return {"logprobs": [{**token, "top_logprobs": [token][: body.get("top_logprobs") or 0]}]}
