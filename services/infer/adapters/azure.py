"""OpenAI's models on Azure, by resource and key.

https://learn.microsoft.com/azure/foundry/openai/: the route ``/openai/v1``, where the deployment is
the body's `model`, and the older one with the deployment in the path and an `api-version`. What a
resource's `/models` lists are base models, not deployments, so these are told by a setting.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.infer.adapters.failures import FILTERED, NO_MODEL, OVERLOADED, ErrorTable
from services.infer.adapters.http import OK, key_of
from services.infer.adapters.openai import (
    of_openais_models,
    rate_limit_reset,
    with_completion_tokens,
)
from services.infer.adapters.openai_errors import CODES, NUMBERS, PATTERNS
from services.infer.adapters.openai_protocol import ASKING_TIMEOUT, OpenAIProtocolEngine
from services.infer.ports import Capabilities, GenerateRequest, ModelInfo
from services.infer.settings import ServerSettings, names
from services.runtime.settings import CommaSeparated


class AzureSettings(ServerSettings):
    """A resource of Azure OpenAI."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_AZURE_")
    activating = frozenset({"url"})

    url: str = Field("", validation_alias=names("AZURE_URL", "AZURE_OPENAI_ENDPOINT"))
    """Address of the resource, such as ``https://NAME.openai.azure.com``."""
    api_key: SecretStr = Field(
        SecretStr(""), validation_alias=names("AZURE_API_KEY", "AZURE_OPENAI_API_KEY")
    )
    """Key of the resource."""
    api_version: str = Field(
        "", validation_alias=names("AZURE_API_VERSION", "AZURE_OPENAI_API_VERSION")
    )
    """Version of the older route, such as ``2024-10-21``; empty, or no date, such as ``preview``:
    the route ``/openai/v1``."""
    deployments: CommaSeparated = ()
    """Names of the deployments, separated by commas, the default one first."""

    @property
    def needs_model(self) -> bool:
        return not self.deployments

    @property
    def dated(self) -> bool:
        """Whether the older route is asked for."""
        return self.api_version[:1].isdigit()


class AzureEngine(OpenAIProtocolEngine):
    """Azure OpenAI. A filtered answer finishes so, a filtered request is refused."""

    Settings = AzureSettings
    errors = ErrorTable(
        {
            **CODES,
            "responsibleaipolicyviolation": FILTERED,
            "deploymentnotfound": NO_MODEL,
            "nocapacity": OVERLOADED,
        },
        PATTERNS,
        numbers=NUMBERS,
        delay=rate_limit_reset,
    )
    settings: AzureSettings

    def base_url(self, settings: ServerSettings) -> str:
        url = settings.require("url", "https://NAME.openai.azure.com").rstrip("/")
        root = url.removesuffix("/v1").removesuffix("/openai") + "/openai"
        dated = isinstance(settings, AzureSettings) and settings.dated
        return root if dated else f"{root}/v1"

    def headers(self, settings: ServerSettings) -> Mapping[str, str]:
        key = key_of(settings)
        return {"api-key": key} if key else {}

    def route(self, request: GenerateRequest) -> str:
        route = super().route(request)
        if not self.settings.dated:
            return self._versioned(route)
        return self._versioned(f"/deployments/{quote(request.model, safe='')}{route}")

    def body(self, request: GenerateRequest) -> dict[str, Any]:
        return with_completion_tokens(super().body(request))

    def capabilities(self, model: str = "") -> Capabilities:
        # A deployment's name says nothing about its model, so its text completions are tried.
        return replace(of_openais_models(""), completions=True)

    async def list_models(self) -> Sequence[ModelInfo]:
        path = self._versioned("/models")
        answer = await self.server.request("GET", path, timeout=ASKING_TIMEOUT)
        if answer.status != OK:
            raise self.errors.error(answer.status, answer.body, answer.headers)
        length = self.settings.context_length
        return [ModelInfo(name, length, "azure") for name in self.settings.deployments]

    def _versioned(self, path: str) -> str:
        version = self.settings.api_version
        return f"{path}?api-version={quote(version, safe='')}" if version else path
