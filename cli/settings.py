"""What the operator's command can be told by the environment."""

from pathlib import Path
from typing import ClassVar

from pydantic import AliasChoices, Field, SecretStr

from services.runtime.settings import OFFSETS, Port, RuntimeSettings, join_host_port

SAMPLES = Path(__file__).resolve().parents[1] / "docs" / "samples"
SERVICES = ("preprocess", "retrieve", "infer", "postprocess")
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound


class CommandSettings(RuntimeSettings):
    """The same variables as the processes read, and where to find a mesh and be let in."""

    service: ClassVar[str] = "gateway"

    rest_host: str = Field(
        "127.0.0.1",
        validation_alias=AliasChoices("RAGMESH_REST_HOST", "RAGMESH_HOST", "API_HOST"),
    )
    """Address that the gateway's REST binds to."""
    port: Port = Field(8000, validation_alias=AliasChoices("RAGMESH_PORT", "API_PORT"))
    """REST port."""
    url: str | None = None
    """Address of the mesh to talk to; unset: the one on this machine."""
    token: SecretStr | None = None
    """Bearer token; unset: admin.token under `data`."""
    oidc_jwks_url: str | None = None
    """Key set of an OpenID provider, which `keys sync` renders."""
    oidc_consumer: str = "oidc"
    """The consumer that its keys belong to."""
    samples: Path = SAMPLES
    """Folder of the sample documents that `up --demo` ingests."""
    language: str = Field(
        "", validation_alias=AliasChoices("RAGMESH_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    )
    """Of the messages: Japanese for ja*, else English."""

    @property
    def base_url(self) -> str:
        """``http://host:port`` of the mesh, without a slash at the end."""
        return (self.url or f"http://{join_host_port(self.local_host, self.port)}").rstrip("/")

    @property
    def local_host(self) -> str:
        """Where this machine reaches REST."""
        return _ANY_ADDRESS.get(self.rest_host, self.rest_host)

    @property
    def admin_token(self) -> Path:
        return self.data / "admin.token"

    @property
    def state_file(self) -> Path:
        return self.data / "mesh.json"

    @property
    def lock_file(self) -> Path:
        return self.data / "mesh.lock"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def format_file(self) -> Path:
        return self.data / "format-version"

    def probe_target(self, service: str) -> str:
        """Where this machine reaches a service's gRPC server."""
        host = _ANY_ADDRESS.get(self.host, self.host)
        return join_host_port(host, self.grpc_port_of(service))

    def metrics_port_of(self, service: str) -> int | None:
        return self.metrics_base + OFFSETS[service] if self.metrics_base else None
