"""vLLM's server, to its documentation and to what 0.32 was seen to do."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import SecretStr

from services.infer.adapters.vllm import VllmSettings
from tests.contract.infer import rig
from tests.contract.infer.scripted_http import Asked, Failure, Reply
from tests.contract.infer.servers.openai import KEY, MODEL, OpenAIServer, refusal


class VllmServer(OpenAIServer):
    """vLLM 0.32."""

    stands_in = "a scripted server of vLLM's API"
    can = OpenAIServer.can - {rig.FILTER}
    known = OpenAIServer.known | {
        "structured_outputs",
        "continue_final_message",
        "add_generation_prompt",
        "min_p",
    }
    failures: ClassVar[dict[str, Failure]] = {
        **OpenAIServer.failures,
        rig.CONTEXT: Failure(
            400,
            refusal(
                "This model's maximum context length is 512 tokens. However, your prompt contains "
                "at least 513 input tokens.",
                "BadRequestError",
                400,
                "input_tokens",
            ),
        ),
        rig.AUTH: Failure(401, {"error": "Unauthorized"}),
        rig.OVERLOAD: Failure(503, refusal("Server overloaded", "ServiceUnavailableError", 503)),
        rig.DOWN: Failure(500, refusal("EngineCore died", "InternalServerError", 500)),
    }

    def start(self) -> None:
        self.settings = VllmSettings(url=self.url, api_key=SecretStr(KEY))

    def models(self) -> Any:
        return {"data": [{"id": MODEL, "max_model_len": 512, "owned_by": "vllm"}]}

    def no_model(self) -> Failure:
        return Failure(404, refusal("The model does not exist.", "NotFoundError", 404, "model"))

    def problem(self, body: dict[str, Any]) -> Failure | None:
        if body.get("continue_final_message") and body.get("add_generation_prompt", True):
            return Failure(400, refusal("both are set", "BadRequestError", 400))
        guides = body.get("structured_outputs")
        if guides is not None and guides.keys() - {"json", "regex", "choice", "grammar"}:
            return Failure(400, refusal("unknown guide", "BadRequestError", 400))
        return super().problem(body)

    async def other(self, asked: Asked, reply: Reply) -> None:
        if asked.path == "/health":
            return await reply.send(200, "")
        if asked.path == "/metrics":
            page = (
                "# TYPE vllm:num_requests_running gauge\n"
                'vllm:num_requests_running{engine="0",model_name="tiny"} 3.0\n'
                'vllm:num_requests_running{engine="1",model_name="tiny"} 1.0\n'
                'vllm:num_requests_waiting{engine="0",model_name="tiny"} 2.0\n'
                'vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25\n'
            )
            return await reply.send(200, page, kind="text/plain")
        if asked.path == "/tokenize":
            said = str(asked.body.get("prompt") or asked.body["messages"])
            count = -(-len(said) // 4)
            return await reply.send(200, {"count": count, "max_model_len": 512, "tokens": []})
        return await super().other(asked, reply)
