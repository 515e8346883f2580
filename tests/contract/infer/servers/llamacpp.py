"""llama.cpp's ``llama-server``, to the README of its ``tools/server``."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import SecretStr

from services.infer.adapters.llamacpp import LlamaCppSettings
from tests.contract.infer import rig
from tests.contract.infer.scripted_http import Failure
from tests.contract.infer.servers.openai import KEY, MODEL, OpenAIServer


def refusal(code: int, message: str, type_: str, **more: Any) -> Failure:
    return Failure(code, {"error": {"code": code, "message": message, "type": type_, **more}})


class LlamaServer(OpenAIServer):
    """llama-server."""

    stands_in = "a scripted server of llama-server's API"
    can = OpenAIServer.can - {rig.FILTER}
    rate_limit_delay = None
    max_stops = 64
    known = OpenAIServer.known | {"grammar", "json_schema"}
    failures: ClassVar[dict[str, Failure]] = {
        rig.CONTEXT: refusal(
            400,
            "the request (513 tokens) exceeds the available context size (512 tokens), try "
            "increasing it",
            "exceed_context_size_error",
            n_prompt_tokens=513,
            n_ctx=512,
        ),
        # Behind a proxy: llama-server itself limits nothing.
        rig.RATE: Failure(429, {"message": "Too Many Requests"}),
        rig.AUTH: refusal(401, "Invalid API Key", "authentication_error"),
        rig.OVERLOAD: refusal(503, "no slot is available", "unavailable_error"),
        rig.DOWN: refusal(500, "failed to process", "server_error"),
    }

    def start(self) -> None:
        self.settings = LlamaCppSettings(url=self.url, api_key=SecretStr(KEY))

    def models(self) -> Any:
        return {"data": [{"id": MODEL, "owned_by": "llamacpp", "meta": {"n_ctx_train": 512}}]}

    def problem(self, body: dict[str, Any]) -> Failure | None:
        wanted = body.get("response_format") or {}
        if wanted.get("type") == "json_object" and not isinstance(wanted.get("schema", {}), dict):
            return refusal(400, "schema must be an object", "invalid_request_error")
        if wanted and "prompt" in body:
            raise AssertionError("text completions overlook response_format")
        return super().problem(body)

    def said(self, body: dict[str, Any]) -> tuple[str, ...]:
        if "json_schema" in body:
            return ('{"answer": ', '"日本語"}')
        return super().said(body)

    def logprobs(self, body: dict[str, Any], piece: str) -> Any:
        # Its own name for both is the number of likely tokens; 0: none of this.
        top = body.get("top_logprobs") if "messages" in body else body.get("logprobs")
        return super().logprobs(body, piece) if top else None
