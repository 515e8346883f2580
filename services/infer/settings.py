"""What infer can be told."""

from typing import Annotated, ClassVar, Literal

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from services.runtime.settings import RuntimeSettings, Seconds

LEGACY_BACKENDS = {
    "placeholder": "extractive",
    "aira_local": "aira",
    "litellm_local": "llamacpp",
    "nim_remote": "nim",
    "trt": "trtllm",
}
"""Values that existing deployments use -> provider."""

DEFAULT_OPENAI_URL = "https://api.openai.com/v1"
DEFAULT_NIM_URL = "https://integrate.api.nvidia.com/v1"
DEFAULT_VLLM_URL = "http://127.0.0.1:8001/v1"


def _provider(value: object) -> object:
    if not isinstance(value, str):
        return value
    name = value.strip().lower()
    return LEGACY_BACKENDS.get(name, name) or "extractive"


def _names(value: object) -> object:
    if isinstance(value, str):
        return tuple(name.strip().lower() for name in value.split(",") if name.strip())
    return value


def _alias(name: str, *legacy: str) -> AliasChoices:
    return AliasChoices(f"RAGMESH_{name}", *legacy)


class InferSettings(RuntimeSettings):
    """Models, their providers, and how much runs at once."""

    service: ClassVar[str] = "infer"

    model_backend: Annotated[str, BeforeValidator(_provider)] = Field(
        "extractive",
        validation_alias=_alias("MODEL_BACKEND", "MODEL_BACKEND", "LLM_BACKEND", "BACKEND"),
    )
    """The provider behind the alias `default`."""
    providers: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = ()
    """Further providers, by comma, that are reachable as ``provider/model``."""
    model_name: str = Field("", validation_alias=_alias("MODEL_NAME", "MODEL_NAME"))
    """The default provider's model; empty: the first that it lists."""
    model_aliases: dict[str, str] = {}
    """JSON object, alias -> ``provider/model``; `default`, `fast` and `smart` exist anyway."""
    context_length: int = Field(0, ge=0)
    """Tokens; for servers that do not say theirs. 0: unknown."""

    backend_url: str = Field("", validation_alias=_alias("BACKEND_URL", "BACKEND_URL"))
    """Address of the default provider."""
    backend_api_key: SecretStr = SecretStr("")
    """Key of the default provider; empty: the provider's own variable."""
    nim_url: str = Field("", validation_alias=_alias("NIM_URL", "NIM_URL"))
    """Address of NIM; empty: NVIDIA's own."""
    nim_api_key: SecretStr = Field(
        SecretStr(""), validation_alias=_alias("NIM_API_KEY", "NIM_API_KEY", "NGC_API_KEY")
    )
    """Key of NIM."""
    openai_base_url: str = Field("", validation_alias=_alias("OPENAI_BASE_URL", "OPENAI_BASE_URL"))
    """Address of the provider `openai`, any server of that protocol; empty: OpenAI's own."""
    openai_api_key: SecretStr = Field(
        SecretStr(""), validation_alias=_alias("OPENAI_API_KEY", "OPENAI_API_KEY")
    )
    """Key of the provider `openai`."""
    vllm_url: str = ""
    """Address of vLLM; empty: ``http://127.0.0.1:8001/v1``."""
    vllm_api_key: SecretStr = SecretStr("")
    """Key of vLLM, where it wants one."""

    connect_timeout: Seconds = 5.0
    """Seconds to reach an engine's server."""
    engine_timeout: Seconds = 600.0
    """Seconds that a generation may take when its caller set no deadline."""
    max_concurrency: int = Field(64, ge=1)
    """Generations at a time, per provider."""
    max_queue: int = Field(256, ge=0)
    """Generations that wait for their turn, per provider; more are shed."""

    scripted_text: str = "This answer comes from a script."
    """What the provider `scripted`, for trying failures out, answers."""
    scripted_first_delay: Seconds = 0.0
    """Seconds before the first delta."""
    scripted_delay: Seconds = 0.0
    """Seconds between deltas."""
    scripted_mode: Literal["", "fail", "cut", "hang"] = ""
    """fail: before the first delta; cut: break off in the middle; hang: never go on."""
    scripted_reason: str = "ENGINE_UNAVAILABLE"
    """Reason of the failure."""

    @field_validator("model_aliases")
    @classmethod
    def _targets(cls, aliases: dict[str, str]) -> dict[str, str]:
        for alias, target in aliases.items():
            if "/" in alias or not alias:
                raise ValueError(f"alias {alias!r} must be a name without '/'")
            provider, slash, model = target.partition("/")
            if not (provider and slash and model):
                raise ValueError(
                    f"{alias}: provider_model must be provider/model (e.g. ollama/phi3, "
                    "openai/gpt-4)"
                )
        return aliases

    def active_providers(self) -> tuple[str, ...]:
        """The providers to build: the default one first, then those that have settings."""
        names = [self.model_backend, *self.providers, "extractive"]
        if self.openai_api_key.get_secret_value() or self.openai_base_url:
            names.append("openai")
        if self.nim_url or self.nim_api_key.get_secret_value():
            names.append("nim")
        if self.vllm_url:
            names.append("vllm")
        names.extend(target.partition("/")[0] for target in self.model_aliases.values())
        return tuple(dict.fromkeys(names))

    def server_of(self, provider: str) -> tuple[str, str]:
        """Base URL (ending in ``/v1`` by convention) and key of an OpenAI-compatible provider."""
        known = {
            "openai": (self.openai_base_url, self.openai_api_key, DEFAULT_OPENAI_URL),
            "nim": (self.nim_url, self.nim_api_key, DEFAULT_NIM_URL),
            "vllm": (self.vllm_url, self.vllm_api_key, DEFAULT_VLLM_URL),
        }
        url, key, default = known[provider]
        secret = key.get_secret_value()
        if provider == self.model_backend:
            url = url or self.backend_url
            secret = self.backend_api_key.get_secret_value() or secret
        return with_version(url or default), secret

    def model_of(self, provider: str) -> str:
        """The model that a provider answers with when none is named; empty: its first."""
        return self.model_name if provider == self.model_backend else ""


def with_version(url: str) -> str:
    """Add ``/v1`` to a bare address, as operators write ``http://host:8000``."""
    url = url.rstrip("/")
    host, _, path = url.partition("://")[2].partition("/")
    return url if path or not host else f"{url}/v1"
