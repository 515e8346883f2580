"""NVIDIA NIM, hosted and self-hosted, by URL and key.

https://docs.nvidia.com/nim/large-language-models/ (routes, structured generation, migration from
1.x to 2.0) and the hosted endpoint of https://build.nvidia.com, which differs: no health route, 402
when the credits are used up, 404 without JSON for a model that it does not serve.

Releases before 2.0 take schemas and guides in `nvext`. From 2.0 on a NIM is vLLM's or SGLang's own
server, which overlooks `nvext` without a word and takes what it always took.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.infer.adapters.failures import DOWN, NO_MODEL, ErrorTable, failure
from services.infer.adapters.http import OK
from services.infer.adapters.openai_errors import CODES, NUMBERS, PATTERNS
from services.infer.adapters.openai_protocol import ASKING_TIMEOUT, FAMILY, OpenAIProtocolEngine
from services.infer.ports import Capabilities, FormatType, GenerateRequest, GuideKind, ModelInfo
from services.infer.settings import ServerSettings, names
from services.runtime.errors import RagmeshError

HOSTED_URL = "https://integrate.api.nvidia.com/v1"
_RELEASE = re.compile(r"v?(\d+)\.")
_NATIVE = 2
"""The first release without `nvext`."""


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
        return self.hosted

    @property
    def hosted(self) -> bool:
        """Whether NVIDIA's own endpoint is asked."""
        return self.url.rstrip("/") == HOSTED_URL


class NimEngine(OpenAIProtocolEngine):
    """NIM, of either kind; the list of models is when the server says which it is."""

    Settings = NimSettings
    can = replace(FAMILY, guides=frozenset(GuideKind))
    errors = ErrorTable(CODES, PATTERNS, statuses={404: NO_MODEL}, numbers=NUMBERS)
    settings: NimSettings
    _release = 1

    def capabilities(self, model: str = "") -> Capabilities:
        if self.settings.hosted:  # which release serves a model it does not say
            return replace(self.can, top_k=False, guides=frozenset())
        return self.can

    def body(self, request: GenerateRequest) -> dict[str, Any]:
        body = super().body(request)
        if self.settings.hosted or self._release >= _NATIVE:
            return body | _native(request)
        guided = _guided(request)
        if guided:
            body.pop("response_format", None)
            given = body.get("nvext")
            body["nvext"] = {**(given if isinstance(given, dict) else {}), **guided}
        return body

    async def list_models(self) -> Sequence[ModelInfo]:
        models = await super().list_models()
        if not self.settings.hosted:
            with suppress(RagmeshError):
                self._release = await self._major()
        return models

    async def check(self) -> None:
        answer = await self.server.request("GET", "/health/ready", timeout=ASKING_TIMEOUT)
        if answer.status not in (OK, 404):  # the hosted endpoint has none
            raise failure(DOWN)
        await super().check()

    async def _major(self) -> int:
        """The major number of its release; 1 where it does not say."""
        answer = await self.server.request("GET", "/version", timeout=ASKING_TIMEOUT)
        told = answer.json() if answer.status == OK else None
        release = told.get("release") if isinstance(told, dict) else None
        found = _RELEASE.match(release) if isinstance(release, str) else None
        return int(found[1]) if found else 1


def _guided(request: GenerateRequest) -> dict[str, Any]:
    """What `nvext` takes."""
    guide, wanted = request.guide, request.response_format
    if guide is not None:
        value = list(guide.values) if guide.kind is GuideKind.CHOICE else guide.value
        return {f"guided_{guide.kind.value}": value}
    if wanted.type is FormatType.JSON_SCHEMA:  # what NVIDIA recommends, and every release knows
        return {"guided_json": json.loads(wanted.json_schema)}
    return {}


def _native(request: GenerateRequest) -> dict[str, Any]:
    """A guide in vLLM's words and in SGLang's; either overlooks the other's."""
    guide = request.guide
    if guide is None:
        return {}
    if guide.kind is GuideKind.CHOICE:
        choices = "|".join(re.escape(value) for value in guide.values)
        return {"structured_outputs": {"choice": list(guide.values)}, "regex": f"({choices})"}
    other = "regex" if guide.kind is GuideKind.REGEX else "ebnf"
    return {"structured_outputs": {guide.kind.value: guide.value}, other: guide.value}
