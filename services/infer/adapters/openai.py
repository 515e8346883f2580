"""OpenAI itself, and any other server of its protocol that has no adapter of its own."""

from dataclasses import replace

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.infer.adapters.openai_protocol import OpenAIProtocolEngine
from services.infer.ports import Capabilities
from services.infer.settings import ServerSettings, names

DEFAULT_URL = "https://api.openai.com/v1"


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

    @property
    def needs_model(self) -> bool:
        return self.url == DEFAULT_URL


class OpenAIEngine(OpenAIProtocolEngine):
    """OpenAI's chat and text completions."""

    Settings = OpenAISettings
    can = Capabilities(
        tools=True,
        tool_choice=True,
        json_object=True,
        json_schema=True,
        logprobs=True,
        multiple_choices=True,
        vision=True,
        seed=True,
        penalties=True,
        logit_bias=True,
        max_stops=4,
        completions=True,
        lists_all=False,
    )

    def capabilities(self, model: str = "") -> Capabilities:
        # OpenAI refuses top_k; the many other servers of its protocol mostly take it.
        hosted = self.settings.url == DEFAULT_URL
        return self.can if hosted else replace(self.can, top_k=True)
