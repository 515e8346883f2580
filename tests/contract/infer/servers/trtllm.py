"""TensorRT-LLM's trtllm-serve, to nvidia.github.io/TensorRT-LLM."""

from __future__ import annotations

from typing import Any, ClassVar

from services.infer.adapters.trtllm import TrtllmSettings
from tests.contract.infer import rig
from tests.contract.infer.scripted_http import Asked, Failure, Reply
from tests.contract.infer.servers.openai import TEXT, OpenAIServer


def flat(message: str, type_: str, code: int) -> Any:
    return {"object": "error", "message": message, "type": type_, "param": None, "code": code}


class TrtllmServer(OpenAIServer):
    """trtllm-serve: no key, one model under any name, unknown fields refused."""

    stands_in = "a scripted server of trtllm-serve's API"
    can = OpenAIServer.can - {rig.FILTER, rig.AUTH, rig.RATE}
    max_stops = 16
    known = OpenAIServer.known - {"parallel_tool_calls", "metadata"}
    failures: ClassVar[dict[str, Failure]] = {
        rig.CONTEXT: Failure(
            400,
            flat(
                "The sum of prompt length (513.0), query length (0) should not exceed "
                "max_num_tokens (512)",
                "BadRequestError",
                400,
            ),
        ),
        rig.OVERLOAD: Failure(503, flat("The request queue is full", "ServiceUnavailable", 503)),
        rig.DOWN: Failure(500, flat("LLM is shutting down", "InternalServerError", 500)),
    }

    def start(self) -> None:
        self.settings = TrtllmSettings(url=self.url)

    def authorized(self, asked: Asked) -> bool:
        return "authorization" not in asked.headers

    def problem(self, body: dict[str, Any]) -> Failure | None:
        wanted = body.get("response_format", {"type": "text"})
        keys = {"json": "schema", "regex": "regex", "ebnf": "ebnf"}
        if wanted["type"] in keys and not wanted.get(keys[wanted["type"]]):
            return Failure(400, flat("response_format is incomplete", "BadRequestError", 400))
        if wanted["type"] not in {"text", "json_object", *keys}:
            return Failure(400, flat("response_format is unknown", "BadRequestError", 400))
        return super().problem(body)

    def pieces(self, body: dict[str, Any]) -> Any:
        # Its own default is to call none.
        return super().pieces({"tool_choice": "none", **body})

    def said(self, body: dict[str, Any]) -> tuple[str, ...]:
        if body.get("response_format", {}).get("type") in ("json", "json_object"):
            return ('{"answer": ', '"日本語"}')
        return TEXT

    async def other(self, asked: Asked, reply: Reply) -> None:
        if asked.path == "/health":
            return await reply.send(200, "")
        return await super().other(asked, reply)
