"""vLLM's server, to its documentation and to what 0.32 was seen to do."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import SecretStr

from services.infer.adapters.vllm import VllmSettings
from tests.contract.infer import rig
from tests.contract.infer.scripted_http import Failure
from tests.contract.infer.servers.openai import KEY, MODEL, OpenAIServer, refusal


class VllmServer(OpenAIServer):
    """vLLM 0.32."""

    stands_in = "a scripted server of vLLM's API"
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
    }

    def start(self) -> None:
        self.settings = VllmSettings(url=self.url, api_key=SecretStr(KEY))

    def models(self) -> Any:
        return {"data": [{"id": MODEL, "max_model_len": 512, "owned_by": "vllm"}]}

    def no_model(self) -> Failure:
        return Failure(404, refusal("The model does not exist.", "NotFoundError", 404, "model"))
