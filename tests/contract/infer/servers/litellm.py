"""LiteLLM: its proxy, to what version 1.109 answers, and what the library in process is put on."""

from __future__ import annotations

from typing import ClassVar

from pydantic import SecretStr

from services.infer.adapters.litellm import LiteLlmSettings
from tests.contract.infer import rig
from tests.contract.infer.scripted_http import Failure
from tests.contract.infer.servers.openai import KEY, MODEL, OpenAIServer, refusal


class LiteLlmProxyServer(OpenAIServer):
    """The proxy."""

    stands_in = "a scripted server of LiteLLM's proxy"
    failures: ClassVar[dict[str, Failure]] = {
        rig.CONTEXT: Failure(
            400,
            refusal(
                "litellm.ContextWindowExceededError: litellm.BadRequestError: OpenAIException - "
                "This model's maximum context length is 512 tokens. However, your messages "
                "resulted in 513 tokens.. Received Model Group=tiny",
                "invalid_request_error",
                "400",
            ),
        ),
        rig.RATE: Failure(
            429,
            refusal("litellm.RateLimitError: slow down", "throttling_error", "429"),
            {"retry-after": "7"},
        ),
        rig.AUTH: Failure(
            401,
            refusal(
                "Authentication Error, Invalid proxy server token passed",
                "auth_error",
                "401",
                "None",
            ),
        ),
        rig.OVERLOAD: Failure(
            503, refusal("litellm.ServiceUnavailableError: OpenAIException", "None", "503")
        ),
        rig.DOWN: Failure(
            500,
            refusal("litellm.InternalServerError: Connection error.", "None", "500"),
        ),
        rig.FILTER: Failure(
            400,
            refusal(
                "litellm.ContentPolicyViolationError: OpenAIException",
                "content_policy_violation",
                "400",
            ),
        ),
    }

    def start(self) -> None:
        self.settings = LiteLlmSettings(url=self.url, api_key=SecretStr(KEY))

    def no_model(self) -> Failure:
        text = "/chat/completions: Invalid model name passed in model=other. Call `/v1/models`"
        return Failure(400, refusal(text, "invalid_request_error", "400"))


class LiteLlmUpstream(OpenAIServer):
    """OpenAI's API, which the library is told to find here. It passes over what is no JSON and sees
    a stream that was cut."""

    can = OpenAIServer.can - {rig.GARBAGE}

    def start(self) -> None:
        self.settings = LiteLlmSettings(
            model=f"openai/{MODEL}", api_base=f"{self.url}/v1", api_key=SecretStr(KEY)
        )
