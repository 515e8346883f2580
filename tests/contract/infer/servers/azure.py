"""Azure OpenAI, to learn.microsoft.com/azure/foundry/openai."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import SecretStr

from services.infer.adapters.azure import AzureSettings
from tests.contract.infer import rig
from tests.contract.infer.scripted_http import Asked, Failure, Reply, sse
from tests.contract.infer.servers.openai import KEY, MODEL, OpenAIServer


def error(message: str, code: str, **more: Any) -> Any:
    return {"error": {"message": message, "code": code, **more}}


class AzureServer(OpenAIServer):
    """A resource with one deployment, on its newer route."""

    stands_in = "a scripted server of Azure OpenAI's API"
    base = "/openai/v1"
    lead = 2
    known = OpenAIServer.known - {"top_k"}
    failures: ClassVar[dict[str, Failure]] = {
        **OpenAIServer.failures,
        rig.RATE: Failure(
            429,
            error("Requests have exceeded call rate limit. Please retry after 7 seconds.", "429"),
            {"retry-after": "7", "retry-after-ms": "7000"},
        ),
        rig.AUTH: Failure(
            401, error("Access denied due to invalid subscription key or wrong API", "401")
        ),
        rig.OVERLOAD: Failure(503, error("The server is busy", "NoCapacity")),
        rig.FILTER: Failure(
            400,
            error(
                "The response was filtered due to the prompt triggering the content policy.",
                "content_filter",
                param="prompt",
                status=400,
                innererror={"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
            ),
        ),
    }

    def start(self) -> None:
        self.settings = AzureSettings(
            url=self.url, api_key=SecretStr(KEY), deployments=(MODEL,), context_length=512
        )

    def authorized(self, asked: Asked) -> bool:
        return asked.headers.get("api-key") == KEY

    def no_model(self) -> Failure:
        return Failure(404, error("The API deployment does not exist", "DeploymentNotFound"))

    def models(self) -> Any:
        return {"data": [{"id": "gpt-base-model", "object": "model"}]}

    def problem(self, body: dict[str, Any]) -> Failure | None:
        if "messages" in body and "max_tokens" in body:
            message = "Unsupported parameter: use max_completion_tokens"
            return Failure(400, error(message, "unsupported_parameter", param="max_tokens"))
        return super().problem(body)

    def pieces(self, body: dict[str, Any]) -> Iterator[str]:
        prompt = {"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False}}}
        yield sse({"choices": [], "prompt_filter_results": [prompt]})
        for number, piece in enumerate(super().pieces(body)):
            yield piece
            if number == 2:
                annotation: Any = {"index": 0, "finish_reason": None, "content_filter_offsets": {}}
                yield sse({"choices": [annotation]})


class DatedAzureServer(AzureServer):
    """The older route: the deployment in the path, an api-version."""

    stands_in = "a scripted server of Azure OpenAI's older API"
    base = f"/openai/deployments/{MODEL}"

    def start(self) -> None:
        super().start()
        self.settings = self.settings.model_copy(update={"api_version": "2024-10-21"})

    async def answer(self, asked: Asked, reply: Reply) -> None:
        if asked.query.get("api-version") != ["2024-10-21"]:
            return await reply.send(404, error("Resource not found", "404"))
        if asked.path == "/openai/models":
            return await reply.send(200, self.models())
        if asked.path.startswith("/openai/deployments/") and not asked.path.startswith(self.base):
            return await reply.fail(self.no_model())
        return await super().answer(asked, reply)
