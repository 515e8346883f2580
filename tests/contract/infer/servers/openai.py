"""A server of OpenAI's protocol, to https://platform.openai.com/docs/api-reference: what the
scripted servers of the whole family are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import SecretStr

from services.infer.adapters.openai import OpenAISettings
from tests.contract.infer import rig
from tests.contract.infer.scripted_http import Asked, Failure, Reply, ScriptedServer, sse

MODEL = "tiny"
KEY = "k-1"
TEXT = ("こんにちは", "、世界。", " The quick", " brown fox", ": 日本語!")
PROMPT_TOKENS, COMPLETION_TOKENS = 7, 15


def refusal(message: str, type_: str, code: Any = None, param: str | None = None) -> Any:
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


class OpenAIServer(ScriptedServer):
    """Says TEXT, calls the first tool, answers in JSON, gives log-probabilities."""

    stands_in = "a scripted server of OpenAI's API"
    text = "".join(TEXT)
    can = ScriptedServer.can | {rig.FILTER}
    base: ClassVar[str] = "/v1"
    max_stops: ClassVar[int] = 4
    known: ClassVar[frozenset[str]] = frozenset(
        """model messages prompt stream stream_options n tools tool_choice parallel_tool_calls
        response_format temperature top_p top_k max_tokens max_completion_tokens seed stop
        presence_penalty frequency_penalty logit_bias logprobs top_logprobs user metadata
        """.split()
    )
    """Fields that the vendor's API has; others are refused, as strict servers do."""
    failures: ClassVar[dict[str, Failure]] = {
        rig.CONTEXT: Failure(
            400,
            refusal(
                "This model's maximum context length is 512 tokens. However, your messages "
                "resulted in 513 tokens. Please reduce the length of the messages.",
                "invalid_request_error",
                "context_length_exceeded",
                "messages",
            ),
        ),
        rig.RATE: Failure(
            429,
            refusal("Rate limit reached for tiny", "requests", "rate_limit_exceeded"),
            {"retry-after": "7"},
        ),
        rig.AUTH: Failure(
            401,
            refusal("Incorrect API key provided", "invalid_request_error", "invalid_api_key"),
        ),
        rig.OVERLOAD: Failure(
            503, refusal("The engine is currently overloaded", "server_error", None)
        ),
        rig.DOWN: Failure(500, refusal("The server had an error", "server_error")),
        rig.FILTER: Failure(
            400,
            refusal(
                "Your request was rejected as a result of our safety system.",
                "invalid_request_error",
                "content_policy_violation",
            ),
        ),
    }

    def start(self) -> None:
        self.settings = OpenAISettings(url=self.url + self.base, api_key=SecretStr(KEY))

    async def answer(self, asked: Asked, reply: Reply) -> None:
        if not self.authorized(asked):
            return await reply.fail(self.failures[rig.AUTH])
        if asked.path == f"{self.base}/models":
            return await reply.send(200, self.models())
        if asked.path in (f"{self.base}/chat/completions", f"{self.base}/completions"):
            return await self.generate(asked.body, reply)
        return await self.other(asked, reply)

    async def other(self, asked: Asked, reply: Reply) -> None:
        """Routes that only some vendors have."""
        await reply.send(404, {"detail": "Not Found"})

    def authorized(self, asked: Asked) -> bool:
        return asked.headers.get("authorization") == f"Bearer {KEY}"

    def models(self) -> Any:
        return {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "test"}]}

    def no_model(self) -> Failure:
        return Failure(
            404,
            refusal("The model does not exist", "invalid_request_error", "model_not_found"),
        )

    def problem(self, body: dict[str, Any]) -> Failure | None:
        """What the vendor refuses a body for."""
        if body.get("model") != MODEL:
            return self.no_model()
        unknown = body.keys() - self.known
        if unknown:
            return Failure(
                400,
                refusal(
                    f"Unrecognized request argument supplied: {min(unknown)}",
                    "invalid_request_error",
                    None,
                    min(unknown),
                ),
            )
        if len(body.get("stop") or ()) > self.max_stops:
            return Failure(400, refusal("too many stops", "invalid_request_error", None, "stop"))
        return None

    async def generate(self, body: dict[str, Any], reply: Reply) -> None:
        failure = self.refusal or self.problem(body)
        if failure:
            return await reply.fail(failure)
        assert body["stream"] is True, "generations are always streamed"
        await reply.stream(self.pieces(body))

    def pieces(self, body: dict[str, Any]) -> Iterator[str]:
        chat = "messages" in body
        for index in range(body.get("n") or 1):
            if chat:
                yield sse(_chunk(index, {"role": "assistant", "content": ""}))
            else:
                yield ": ping\n\n"
            finish = "stop"
            if body.get("tools") and body.get("tool_choice") != "none":
                finish = "tool_calls"
                yield from self.calls(index, body["tools"][0]["function"]["name"])
            else:
                for piece in self.said(body):
                    yield sse(
                        _chunk(index, {"content": piece}, None, self.logprobs(body, piece))
                        if chat
                        else _text(index, piece, None, self.logprobs(body, piece))
                    )
            yield sse(_chunk(index, {}, finish) if chat else _text(index, "", finish))
        if self.mode != rig.NO_USAGE:
            yield sse({"id": "c", "choices": [], "usage": self.usage()})
        yield sse("[DONE]")

    def said(self, body: dict[str, Any]) -> tuple[str, ...]:
        if body.get("response_format", {}).get("type") in ("json_object", "json_schema"):
            return ('{"answer": ', '"日本語"}')
        return TEXT

    def calls(self, index: int, name: str) -> Iterator[str]:
        first = {"index": 0, "id": "call_1", "type": "function"}
        opening = {**first, "function": {"name": name, "arguments": ""}}
        yield sse(_chunk(index, {"tool_calls": [opening]}))
        for part in ('{"city": ', '"東京"}'):
            delta = {"index": 0, "function": {"arguments": part}}
            yield sse(_chunk(index, {"tool_calls": [delta]}))

    def logprobs(self, body: dict[str, Any], piece: str) -> Any:
        wanted = body.get("logprobs")
        if wanted is None or wanted is False:
            return None
        if "messages" not in body:
            return {"tokens": [piece], "token_logprobs": [-0.5], "top_logprobs": [{piece: -0.5}]}
        token = {"token": piece, "logprob": -0.5, "bytes": list(piece.encode())}
        tops = [token][: body.get("top_logprobs") or 0]
        return {"content": [{**token, "top_logprobs": tops}], "refusal": None}

    def usage(self) -> Any:
        return {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
            "prompt_tokens_details": {"cached_tokens": 3},
        }


def whole(text: str = "".join(TEXT)) -> str:
    """The answer of a server that does not stream."""
    message = {"role": "assistant", "content": text}
    return json.dumps(
        {
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 15},
        }
    )


def _chunk(index: int, delta: Any, finish: str | None = None, logprobs: Any = None) -> Any:
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "model": MODEL, "choices": [choice]}


def _text(index: int, text: str, finish: str | None = None, logprobs: Any = None) -> Any:
    choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
    return {"id": "c", "object": "text_completion", "model": MODEL, "choices": [choice]}
