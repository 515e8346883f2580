"""NVIDIA NIM's server, to docs.nvidia.com/nim/large-language-models, and the hosted endpoint."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import SecretStr

from services.infer.adapters.nim import NimSettings
from tests.contract.infer import rig
from tests.contract.infer.scripted_http import Asked, Failure, Reply
from tests.contract.infer.servers.openai import KEY, OpenAIServer, refusal


class NimServer(OpenAIServer):
    """A self-hosted NIM of before 2.0, with the problem objects of NVIDIA's own endpoint."""

    release = "1.13.0"
    stands_in = "a scripted server of NIM's API"
    can = OpenAIServer.can - {rig.FILTER}
    known = OpenAIServer.known | {"nvext"}
    failures: ClassVar[dict[str, Failure]] = {
        **OpenAIServer.failures,
        rig.CONTEXT: Failure(
            400,
            {
                "object": "error",
                "message": "This model's maximum context length is 512 tokens. However, you "
                "requested 513 tokens (413 in the messages, 100 in the completion).",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            },
        ),
        rig.AUTH: Failure(
            403, {"status": 403, "title": "Forbidden", "detail": "Authorization failed"}
        ),
        rig.RATE: Failure(429, {"status": 429, "title": "Too Many Requests"}),
        rig.OVERLOAD: Failure(503, {"status": 503, "title": "Service Unavailable"}),
    }
    rate_limit_delay = None

    def start(self) -> None:
        self.settings = NimSettings(url=self.url, api_key=SecretStr(KEY))

    def no_model(self) -> Failure:
        return Failure(404, "404 page not found")

    def problem(self, body: dict[str, Any]) -> Failure | None:
        guides = body.get("nvext", {}).keys()
        if guides - {"guided_json", "guided_regex", "guided_choice", "guided_grammar"}:
            detail = {"loc": ["body", "nvext"], "msg": "Extra inputs", "type": "extra_forbidden"}
            return Failure(422, {"detail": [detail]})
        if body.get("response_format", {}).get("type") == "json_schema":
            return Failure(400, refusal("use nvext.guided_json", "BadRequestError", 400))
        return super().problem(body)

    def said(self, body: dict[str, Any]) -> tuple[str, ...]:
        if "guided_json" in body.get("nvext", {}):
            return ('{"answer": "日本', '語"}')
        return super().said(body)

    async def other(self, asked: Asked, reply: Reply) -> None:
        if asked.path == "/v1/health/ready":
            ready = {"object": "health-response", "message": "Service is ready."}
            return await reply.send(200, ready)
        if asked.path == "/v1/version":
            return await reply.send(200, {"release": self.release, "api": self.release})
        return await super().other(asked, reply)


class NativeNimServer(NimServer):
    """A NIM of 2.0 or later: vLLM or SGLang behind NIM's own health and version."""

    release = "2.1.6"
    known = OpenAIServer.known | {"structured_outputs", "regex", "ebnf"}

    def problem(self, body: dict[str, Any]) -> Failure | None:
        return OpenAIServer.problem(self, body)

    def said(self, body: dict[str, Any]) -> tuple[str, ...]:
        return OpenAIServer.said(self, body)
