"""What infer can be told: in general, and about each provider.

An engine's own settings stand in its adapter's file, in a class that inherits from one of these.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.runtime.errors import FailedPrecondition
from services.runtime.settings import RuntimeSettings, Seconds

LEGACY_BACKENDS = {
    "placeholder": "extractive",
    "aira_local": "aira",
    "litellm_local": "llamacpp",
    "nim_remote": "nim",
    "trt": "trtllm",
}
"""Values that existing deployments use -> provider."""


def _provider(value: object) -> object:
    if not isinstance(value, str):
        return value
    name = value.strip().lower()
    return LEGACY_BACKENDS.get(name, name) or "extractive"


def _names(value: object) -> object:
    if isinstance(value, str):
        return tuple(name.strip().lower() for name in value.split(",") if name.strip())
    return value


def names(own: str, *legacy: str) -> AliasChoices:
    """A field's variables: ``RAGMESH_`` and `own`, then the names that it had before."""
    return AliasChoices(f"RAGMESH_{own}", *legacy)


class EngineSettings(BaseSettings):
    """What every provider can be told; its variables begin with ``RAGMESH_<PROVIDER>_``.

    An adapter's class sets ``env_prefix``, adds its own fields, and may name older variables:

        class MyEngineSettings(ServerSettings):
            model_config = SettingsConfigDict(env_prefix="RAGMESH_MYENGINE_")
    """

    model_config = SettingsConfigDict(
        env_prefix="RAGMESH_<PROVIDER>_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        use_attribute_docstrings=True,  # docs/settings.md is made of them
    )

    activating: ClassVar[frozenset[str]] = frozenset({"url", "api_key", "model", "model_path"})
    """Fields of which one that is set makes the provider available, without its being asked for."""

    model: str = ""
    """The model that answers when none is named; empty: the first that the engine lists."""
    context_length: int = Field(0, ge=0)
    """Tokens, where the engine does not say; 0: ``RAGMESH_CONTEXT_LENGTH``."""
    max_concurrency: int | None = Field(None, ge=1)
    """Generations at a time; unset: ``RAGMESH_MAX_CONCURRENCY``."""
    model_concurrency: dict[str, Annotated[int, Field(ge=1)]] = {}
    """JSON object, model -> generations at a time, for models that bear less."""
    max_queue: int | None = Field(None, ge=0)
    """Generations that wait for their turn; unset: ``RAGMESH_MAX_QUEUE``."""

    @property
    def configured(self) -> bool:
        """Whether the environment says something that makes the provider available."""
        return bool(self.activating & self.model_fields_set)

    @property
    def needs_model(self) -> bool:
        """Whether the first model that is listed would be a bad default."""
        return False

    def require(self, field: str, example: str) -> str:
        """The value of a field that the engine cannot do without.

        Raises:
            FailedPrecondition: SETTING_REQUIRED.
        """
        value = getattr(self, field)
        text = str(value.get_secret_value() if isinstance(value, SecretStr) else value)
        if not text:
            variable = f"{self.model_config.get('env_prefix')}{field.upper()}"
            raise FailedPrecondition("SETTING_REQUIRED", f"Set {variable}, such as {example}.")
        return text

    def filled(self, general: Mapping[str, Any]) -> Self:
        """These settings with what was told about the default provider in general, where they
        have a field of that name and nothing of their own in it."""
        known = type(self).model_fields.keys() - self.model_fields_set
        return self.model_copy(update={k: v for k, v in general.items() if v and k in known})


class ServerSettings(EngineSettings):
    """What a provider can be told that is reached by URL."""

    url: str = ""
    """Address of the server."""
    api_key: SecretStr = SecretStr("")
    """Key of the server, where it wants one."""
    connect_timeout: Seconds | None = None
    """Seconds to reach the server; unset: ``RAGMESH_CONNECT_TIMEOUT``."""
    ca_file: Path | None = None
    """Certificate of the authority that signed the server's; unset: the system's authorities."""
    proxy: str = ""
    """URL of an HTTP proxy on the way to the server; empty: none."""


class LocalSettings(EngineSettings):
    """What a provider can be told that runs in this process."""

    model_path: str = ""
    """Where the model lies: a file or a folder, or a name that the engine's library can load."""


class InferSettings(RuntimeSettings):
    """Models, their providers, and how much runs at once."""

    service: ClassVar[str] = "infer"

    model_backend: Annotated[str, BeforeValidator(_provider)] = Field(
        "extractive",
        validation_alias=names("MODEL_BACKEND", "MODEL_BACKEND", "LLM_BACKEND", "BACKEND"),
    )
    """The provider behind the alias `default`."""
    providers: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = ()
    """Further providers, by comma, that are reachable as ``provider/model``; those whose address,
    key or model is set need not be named."""
    model_name: str = Field("", validation_alias=names("MODEL_NAME", "MODEL_NAME"))
    """The default provider's model; empty: the first that it lists."""
    model_path: str = Field("", validation_alias=names("MODEL_PATH", "MODEL_PATH"))
    """Where the default provider's model lies, if it runs in this process."""
    model_aliases: dict[str, str] = {}
    """JSON object, alias -> ``provider/model``; `default`, `fast` and `smart` exist anyway."""
    context_length: int = Field(0, ge=0)
    """Tokens; for servers that do not say theirs. 0: unknown."""

    backend_url: str = Field("", validation_alias=names("BACKEND_URL", "BACKEND_URL"))
    """Address of the default provider; the provider's own variable wins."""
    backend_api_key: SecretStr = SecretStr("")
    """Key of the default provider; empty: the provider's own variable."""

    connect_timeout: Seconds = 5.0
    """Seconds to reach an engine's server."""
    engine_timeout: Seconds = 600.0
    """Seconds that a generation may take when its caller set no deadline."""
    max_concurrency: int = Field(64, ge=1)
    """Generations at a time, per provider."""
    max_queue: int = Field(256, ge=0)
    """Generations that wait for their turn, per provider; more are shed."""
    engine_metrics_interval: Seconds = 15.0
    """Seconds between two looks at what engines tell of their own load; 0: never."""
    tenant_weights: dict[str, float] = {}
    """JSON object, tenant id -> its share of a busy engine relative to other tenants', which is 1
    where it is not named."""

    @field_validator("tenant_weights")
    @classmethod
    def _positive(cls, weights: dict[str, float]) -> dict[str, float]:
        if any(not 0 < weight < float("inf") for weight in weights.values()):
            raise ValueError("weights must be above 0")
        return weights

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

    @property
    def of_the_default(self) -> Mapping[str, Any]:
        """What is told about the default provider without naming it; fields of its settings."""
        return {
            "url": self.backend_url,
            "api_key": self.backend_api_key if self.backend_api_key.get_secret_value() else None,
            "model": self.model_name,
            "model_path": self.model_path,
        }

    @property
    def named_providers(self) -> tuple[str, ...]:
        """The providers that are asked for by name, the default one first."""
        targets = (target.partition("/")[0] for target in self.model_aliases.values())
        return tuple(dict.fromkeys((self.model_backend, *self.providers, "extractive", *targets)))
