"""Text Generation Inference, to huggingface.co/docs/text-generation-inference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import SecretStr

from services.infer.adapters.tgi import TgiSettings
from tests.contract.infer import rig
from tests.contract.infer.scripted_http import Asked, Failure, Reply, sse
from tests.contract.infer.servers.openai import KEY, MODEL, OpenAIServer


def error(message: str, type_: str) -> Any:
    return {"error": message, "error_type": type_}


class TgiServer(OpenAIServer):
    """TGI 3: grammars as answer formats, its own errors, one model."""

    stands_in = "a scripted server of TGI's API"
    can = OpenAIServer.can - {rig.FILTER}
    known = OpenAIServer.known - {"parallel_tool_calls", "logit_bias", "n", "top_k", "metadata"}
    failures: ClassVar[dict[str, Failure]] = {
        rig.CONTEXT: Failure(
            422,
            error(
                "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 512. "
                "Given: 413 `inputs` tokens and 100 `max_new_tokens`",
                "validation",
            ),
        ),
        rig.RATE: Failure(429, {"error": "Rate limit reached"}, {"retry-after": "7"}),
        rig.AUTH: Failure(401, ""),
        rig.OVERLOAD: Failure(429, error("Model is overloaded", "overloaded")),
        rig.DOWN: Failure(424, error("Request failed during generation", "generation")),
    }

    def start(self) -> None:
        self.settings = TgiSettings(url=self.url, api_key=SecretStr(KEY))

    def problem(self, body: dict[str, Any]) -> Failure | None:
        grammar = body.get("response_format")
        if grammar is not None and (
            grammar["type"] not in ("json", "regex") or "value" not in grammar or "prompt" in body
        ):
            return Failure(422, "Failed to deserialize the JSON body into the target type")
        if grammar is not None and body.get("tools"):
            message = "Grammar and tools are mutually exclusive"
            return Failure(422, error(message, "validation"))
        if not 0 < body.get("top_p", 0.5) < 1:
            message = "Input validation error: `top_p` must be > 0.0 and < 1.0"
            return Failure(422, error(message, "validation"))
        return super().problem(body)

    def said(self, body: dict[str, Any]) -> tuple[str, ...]:
        if body.get("response_format", {}).get("type") == "json":
            return ('{"answer": ', '"日本語"}')
        return super().said(body)

    def pieces(self, body: dict[str, Any]) -> Iterator[str]:
        for event in super().pieces(body):
            if '"finish_reason": "tool_calls"' not in event:  # no chunk says that it is over
                yield event

    def calls(self, index: int, name: str) -> Iterator[str]:
        for part in ("{", '"city": ', '"東京"}'):
            call = {
                "index": 0,
                "id": "",
                "type": "function",
                "function": {"name": name, "arguments": part},
            }
            delta = {"role": "assistant", "content": None, "tool_calls": [call]}
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            yield sse({"object": "chat.completion.chunk", "choices": [choice], "usage": None})

    async def other(self, asked: Asked, reply: Reply) -> None:
        if asked.path == "/health":
            return await reply.send(200, "")
        if asked.path == "/info":
            info = {"model_id": MODEL, "max_total_tokens": 512, "max_input_tokens": 500}
            return await reply.send(200, info)
        if asked.path == "/tokenize":
            return await reply.send(200, [{"id": 1, "text": "a"}] * len(asked.body["inputs"]))
        if asked.path == "/chat_tokenize":
            tokens = [{"id": 1, "text": "a"}] * (len(str(asked.body["messages"])) // 4)
            return await reply.send(200, {"tokenize_response": tokens, "templated_text": ""})
        return await super().other(asked, reply)
