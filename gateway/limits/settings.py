"""What can be set about limits."""

from typing import Annotated

from pydantic import AliasChoices, Field, SecretStr

from services.runtime.settings import RuntimeSettings

Limit = Annotated[int, Field(ge=1)]


class LimitSettings(RuntimeSettings):
    """Limits of a tenant, all off by default, and where replicas share their counters."""

    redis_url: SecretStr | None = Field(
        None, validation_alias=AliasChoices("RAGMESH_REDIS_URL", "REDIS_URL")
    )
    """``redis://``, ``rediss://`` or ``unix://``; unset: every process counts for itself."""
    limit_redis_timeout: Annotated[float, Field(gt=0)] = 0.05
    """Seconds that Redis gets to answer before a process counts for itself."""

    tenant_requests_per_minute: Limit | None = None
    """Requests of a tenant in a calendar minute."""
    tenant_requests_per_hour: Limit | None = None
    """Requests of a tenant in a calendar hour."""
    tenant_tokens_per_minute: Limit | None = None
    """Tokens of a tenant, prompts and answers together, in a calendar minute."""
    tenant_tokens_per_day: Limit | None = None
    """Tokens of a tenant in a day of UTC."""
    tenant_streams: Limit | None = None
    """Streams of a tenant at a time."""
    default_output_tokens: Limit = 1024
    """With token limits: what is reserved for an answer, and the most it may have, when its
    request names no maximum."""
    stream_lease: Annotated[float, Field(ge=1)] = 30.0
    """Seconds after which Redis frees the places of a process that died."""
