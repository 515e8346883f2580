"""NVIDIA NIM, hosted and self-hosted, by URL and key.

https://docs.nvidia.com/nim/large-language-models/latest/ (routes, structured generation) and the
hosted endpoint of https://build.nvidia.com, which differs: no health route, 402 when the credits
are used up, 404 without JSON for a model that it does not serve.
"""

import json
from dataclasses import replace
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.infer.adapters.failures import DOWN, NO_MODEL, ErrorTable, failure
from services.infer.adapters.http import OK
from services.infer.adapters.openai_errors import CODES, NUMBERS, PATTERNS
from services.infer.adapters.openai_protocol import ASKING_TIMEOUT, FAMILY, OpenAIProtocolEngine
from services.infer.ports import Capabilities, FormatType, GenerateRequest, GuideKind
from services.infer.settings import ServerSettings, names

HOSTED_URL = "https://integrate.api.nvidia.com/v1"


class NimSettings(ServerSettings):
    """NVIDIA NIM."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_NIM_")

    url: str = Field(HOSTED_URL, validation_alias=names("NIM_URL", "NIM_URL"))
    """Address of NIM; by default NVIDIA's own."""
    api_key: SecretStr = Field(
        SecretStr(""), validation_alias=names("NIM_API_KEY", "NIM_API_KEY", "NGC_API_KEY")
    )
    """Key of NIM; NVIDIA's own needs one, a self-hosted one needs none."""

    @property
    def needs_model(self) -> bool:
        return self.url == HOSTED_URL


class NimEngine(OpenAIProtocolEngine):
    """NIM: schemas and guides go into its extension `nvext`."""

    Settings = NimSettings
    can = replace(FAMILY, guides=frozenset(GuideKind))
    errors = ErrorTable(CODES, PATTERNS, statuses={404: NO_MODEL}, numbers=NUMBERS)
    settings: NimSettings

    def capabilities(self, model: str = "") -> Capabilities:
        return replace(self.can, top_k=self.settings.url != HOSTED_URL)

    def body(self, request: GenerateRequest) -> dict[str, Any]:
        body = super().body(request)
        guide, wanted = request.guide, request.response_format
        guided: dict[str, Any] = {}
        if guide is not None:
            value = list(guide.values) if guide.kind is GuideKind.CHOICE else guide.value
            guided = {f"guided_{guide.kind.value}": value}
        elif wanted.type is FormatType.JSON_SCHEMA:
            # What NVIDIA recommends, and what every release knows.
            del body["response_format"]
            guided = {"guided_json": json.loads(wanted.json_schema)}
        if guided:
            given = body.get("nvext")
            body["nvext"] = {**(given if isinstance(given, dict) else {}), **guided}
        return body

    async def check(self) -> None:
        answer = await self.server.request("GET", "/health/ready", timeout=ASKING_TIMEOUT)
        if answer.status not in (OK, 404):  # the hosted endpoint has none
            raise failure(DOWN)
        await super().check()
