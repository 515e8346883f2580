"""NVIDIA NIM, hosted and self-hosted, by URL and key."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.infer.adapters.openai_protocol import OpenAIProtocolEngine
from services.infer.ports import Capabilities
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
    """Key of NIM."""

    @property
    def needs_model(self) -> bool:
        return self.url == HOSTED_URL


class NimEngine(OpenAIProtocolEngine):
    """NIM."""

    Settings = NimSettings
    can = Capabilities(
        tools=True,
        tool_choice=True,
        json_object=True,
        json_schema=True,
        logprobs=True,
        multiple_choices=True,
        vision=True,
        seed=True,
        top_k=True,
        penalties=True,
        logit_bias=True,
        max_stops=4,
        completions=True,
        lists_all=False,
    )
