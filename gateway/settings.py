"""What the gateway can be told."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AliasChoices, Field, SecretStr
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from gateway.limits.settings import LimitSettings
from services.runtime.errors import FailedPrecondition
from services.runtime.settings import Port, Seconds

MIB = 1024 * 1024
SERVICES = ("preprocess", "retrieve", "infer", "postprocess")
"""The services that the gateway conducts, in the order of a question's way."""

Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1024)]


class GatewaySettings(LimitSettings):
    """Addresses, budgets and limits of the gateway."""

    service: ClassVar[str] = "gateway"

    rest_host: str = Field(
        "127.0.0.1",
        validation_alias=AliasChoices("RAGMESH_REST_HOST", "RAGMESH_HOST", "API_HOST"),
    )
    """Address that REST binds to. TLS in front of it is Kong's or a proxy's work."""
    port: Port = Field(8000, validation_alias=AliasChoices("RAGMESH_PORT", "API_PORT"))
    """REST port; 0 takes a free one."""

    preprocess_target: str | None = None
    """gRPC target of preprocess, such as ``dns:///preprocess:50051``; unset: this machine's."""
    retrieve_target: str | None = None
    """gRPC target of retrieve."""
    infer_target: str | None = None
    """gRPC target of infer."""
    postprocess_target: str | None = None
    """gRPC target of postprocess."""

    database_url: SecretStr | None = Field(
        None, validation_alias=AliasChoices("RAGMESH_DATABASE_URL", "DATABASE_URL")
    )
    """PostgreSQL (or SQLite) of the SQL store; unset: gateway.db under `data`."""
    secret_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("RAGMESH_SECRET_KEY", "SECRET_KEY")
    )
    """At least 32 bytes; switches HS256 tokens on, for embedded use."""
    edge: Literal["", "kong"] = Field("", validation_alias=AliasChoices("RAGMESH_EDGE", "EDGE"))
    """What stands in front; kong: its limits hold, and the gateway does not count again."""
    kong_file: Path | None = None
    """What `ragmesh keys` renders: consumers, public keys, the edge; unset: kong.yml of `data`."""

    token_leeway: Seconds = 5.0
    """Seconds of clock skew allowed on a token's `exp` and `nbf`."""
    token_max_lifetime: Annotated[float, Field(gt=0)] | None = None
    """Seconds from now that `exp` may lie ahead; the rendered file's own bound holds besides."""
    oidc_jwks_url: str | None = None
    """Key set of an OpenID provider whose tokens are accepted besides; https, but on loopback."""
    oidc_issuer: str | None = None
    """What `iss` of its tokens must be."""
    oidc_audience: str = "ragmesh"
    """What `aud` of its tokens must contain."""
    oidc_consumer: str = "oidc"
    """The consumer whose entry bounds its tokens' tenants, scopes and models."""
    oidc_refresh: Annotated[float, Field(ge=10)] = 300.0
    """Seconds between two fetches of the key set."""

    request_budget: Seconds = 300.0
    """Seconds that a request may take through all its hops."""
    ingest_budget: Seconds = 1800.0
    """Seconds that a call with documents may take."""
    rewrite_budget: Seconds = 4.0
    """Seconds that a model gets to rewrite a follow-up question before the rules' own is used."""
    health_budget: Seconds = 1.0
    """Seconds that each service gets to say how it is."""
    keepalive_seconds: Annotated[float, Field(gt=0)] = 15.0
    """Seconds of silence after which an SSE stream carries a comment."""

    max_json_bytes: Bytes = 16 * MIB
    """Largest JSON body."""
    max_upload_bytes: Bytes = 512 * MIB
    """Largest body of a call with documents."""
    max_document_bytes: Bytes = 50_000_000
    """Largest single document; preprocess reads the same variable."""
    max_documents: Count = 1000
    """Documents a call."""
    max_metadata_bytes: Bytes = 64 * 1024
    """Largest metadata of a document, as JSON."""
    max_text_characters: Count = 2_000_000
    """Longest text to generate from or to summarise."""
    parallel_documents: Count = 4
    """Documents of one call that are parsed at a time."""
    history_turns: Count = 10
    """Turns of a session that a follow-up question sees."""

    @property
    def credentials(self) -> Path:
        """The rendered file."""
        return self.kong_file or self.data / "kong.yml"

    def target(self, service: str) -> str:
        """Where a service answers."""
        chosen: str | None = getattr(self, f"{service}_target")
        return chosen or self.target_of(service)

    @property
    def store_url(self) -> URL:
        """The SQL store, with its asyncio driver.

        Raises:
            FailedPrecondition: DATABASE_URL_INVALID.
        """
        if self.database_url is None:
            return URL.create("sqlite+aiosqlite", database=str(self.data / "gateway.db"))
        try:
            url = make_url(self.database_url.get_secret_value())
        except ArgumentError:
            url = None
        drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
        drivers["postgres"] = drivers["postgresql"]
        driver = drivers.get(url.drivername.partition("+")[0]) if url is not None else None
        if url is None or driver is None:
            raise FailedPrecondition(
                "DATABASE_URL_INVALID",
                "DATABASE_URL must look like postgresql://user:password@host/name or "
                "sqlite:///path.",
            )
        return url.set(drivername=driver)
