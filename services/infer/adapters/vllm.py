"""vLLM's OpenAI-compatible server, by URL."""

from pydantic_settings import SettingsConfigDict

from services.infer.adapters.openai_protocol import OpenAIProtocolEngine
from services.infer.ports import Capabilities
from services.infer.settings import ServerSettings


class VllmSettings(ServerSettings):
    """A vLLM server."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_VLLM_")

    url: str = "http://127.0.0.1:8001/v1"
    """Address of vLLM."""


class VllmEngine(OpenAIProtocolEngine):
    """vLLM."""

    Settings = VllmSettings
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
