"""SGLang's server, to docs.sglang.ai."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import SecretStr

from services.infer.adapters.sglang import SglangSettings
from tests.contract.infer import rig
from tests.contract.infer.scripted_http import Asked, Failure, Reply
from tests.contract.infer.servers.openai import KEY, MODEL, OpenAIServer
from tests.contract.infer.servers.trtllm import flat


class SglangServer(OpenAIServer):
    """SGLang: guides beside the protocol's fields, the context's length in another route."""

    stands_in = "a scripted server of SGLang's API"
    can = OpenAIServer.can - {rig.FILTER, rig.RATE}
    max_stops = 16
    known = OpenAIServer.known | {"regex", "ebnf", "continue_final_message"}
    failures: ClassVar[dict[str, Failure]] = {
        rig.CONTEXT: Failure(
            400,
            flat(
                "The input (513 tokens) is longer than the model's context length (512 tokens).",
                "BadRequestError",
                400,
            ),
        ),
        rig.AUTH: Failure(401, {"error": "Unauthorized"}),
        rig.OVERLOAD: Failure(503, flat("The request queue is full.", "ServiceUnavailable", 503)),
        rig.DOWN: Failure(500, flat("Internal server error", "InternalServerError", 500)),
    }

    def start(self) -> None:
        self.settings = SglangSettings(url=self.url, api_key=SecretStr(KEY))

    def problem(self, body: dict[str, Any]) -> Failure | None:
        if "regex" in body and "ebnf" in body:
            return Failure(400, flat("only one guide", "BadRequestError", 400))
        return super().problem(body)

    async def other(self, asked: Asked, reply: Reply) -> None:
        if asked.path == "/health":
            return await reply.send(200, "")
        if asked.path == "/get_server_info":
            return await reply.send(200, {"model_path": MODEL, "context_length": 512})
        return await super().other(asked, reply)
