"""OpenAI itself, and any other server of its protocol that has no adapter of its own."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.infer.adapters.failures import ErrorTable, retry_after
from services.infer.adapters.http import bearer
from services.infer.adapters.openai_errors import CODES, NUMBERS, PATTERNS
from services.infer.adapters.openai_protocol import FAMILY, OpenAIProtocolEngine
from services.infer.ports import Capabilities, GenerateRequest
from services.infer.settings import ServerSettings, names

DEFAULT_URL = "https://api.openai.com/v1"
_HOST = "api.openai.com"
_REASONING = re.compile(r"o\d")
_COMPLETION = re.compile(r"(?:davinci|babbage)-|.*-instruct\b")
_SPAN = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?")


class OpenAISettings(ServerSettings):
    """OpenAI, or a server that speaks its protocol."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_OPENAI_")

    url: str = Field(
        DEFAULT_URL,
        validation_alias=names("OPENAI_URL", "RAGMESH_OPENAI_BASE_URL", "OPENAI_BASE_URL"),
    )
    """Address of OpenAI or of any server of its protocol."""
    api_key: SecretStr = Field(
        SecretStr(""), validation_alias=names("OPENAI_API_KEY", "OPENAI_API_KEY")
    )
    """Key of OpenAI."""
    organization: str = Field("", validation_alias=names("OPENAI_ORGANIZATION", "OPENAI_ORG_ID"))
    """Organisation that pays, for keys that belong to several."""
    project: str = Field("", validation_alias=names("OPENAI_PROJECT", "OPENAI_PROJECT_ID"))
    """Project that pays."""

    @property
    def needs_model(self) -> bool:
        return self.hosted

    @property
    def hosted(self) -> bool:
        """Whether it is OpenAI itself, in whatever region."""
        host = urlsplit(self.url).hostname or ""
        return host == _HOST or host.endswith(f".{_HOST}")


def rate_limit_reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until the limit that is used up is whole again, as OpenAI's headers tell them
    (``x-ratelimit-reset-requests: 6m0s``), where no `retry-after` does."""
    named = retry_after(headers)
    if named is not None:
        return named
    spans = [
        headers.get(f"x-ratelimit-reset-{what}", "")
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}") == "0"
    ]
    return max((seconds for span in spans if (seconds := _seconds(span)) is not None), default=None)


def _seconds(span: str) -> float | None:
    found = _SPAN.fullmatch(span)
    if not span or found is None:
        return None
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


class OpenAIEngine(OpenAIProtocolEngine):
    """OpenAI's chat and text completions."""

    Settings = OpenAISettings
    errors = ErrorTable(CODES, PATTERNS, numbers=NUMBERS, delay=rate_limit_reset)
    settings: OpenAISettings

    def headers(self, settings: ServerSettings) -> Mapping[str, str]:
        made = bearer(settings)
        if isinstance(settings, OpenAISettings):
            if settings.organization:
                made["openai-organization"] = settings.organization
            if settings.project:
                made["openai-project"] = settings.project
        return made

    def capabilities(self, model: str = "") -> Capabilities:
        if not self.settings.hosted:
            return FAMILY
        return of_openais_models(model)

    def body(self, request: GenerateRequest) -> dict[str, Any]:
        body = super().body(request)
        return with_completion_tokens(body) if self.settings.hosted else body


def of_openais_models(model: str) -> Capabilities:
    """What OpenAI's own models take: no top_k; text completions by the old ones alone; reasoning
    models of the o series neither stops nor penalties nor log-probabilities."""
    can = replace(FAMILY, top_k=False, completions=bool(_COMPLETION.match(model)))
    if _REASONING.match(model):
        return replace(can, logprobs=False, penalties=False, logit_bias=False, max_stops=0)
    return can


def with_completion_tokens(body: dict[str, Any]) -> dict[str, Any]:
    """A chat's limit under its new name, which reasoning models ask for and all chat models know;
    it counts the reasoning as well."""
    if "messages" in body and "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")
    return body
