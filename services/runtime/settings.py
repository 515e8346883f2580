"""What every process can be told. The only classes that read the environment inherit from here."""

import ipaddress
import os
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from services.runtime.tls import TlsFiles, files_in

EXIT_MISCONFIGURED = 2
"""Exit status of a process that would fail again if it were started again."""

OFFSETS = {
    "gateway": 0,
    "preprocess": 1,
    "retrieve": 2,
    "infer": 3,
    "postprocess": 4,
    "worker": 5,
}
"""Service -> distance of its ports from RAGMESH_GRPC_BASE and RAGMESH_METRICS_BASE."""

Port = Annotated[int, Field(ge=0, le=65_530)]
Seconds = Annotated[float, Field(ge=0)]
CommaSeparated = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(
        lambda value: (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )
    ),
]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]


class RuntimeSettings(BaseSettings):
    """Settings of the chassis. A service's class inherits, names itself and adds its own.

    A variable is ``RAGMESH_`` and the field's name in capitals; a legacy name is given as an
    alias after it, so that ``RAGMESH_*`` wins.
    """

    model_config = SettingsConfigDict(
        env_prefix="RAGMESH_",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        use_attribute_docstrings=True,  # docs/settings.md is made of them
    )

    service: ClassVar[str] = "gateway"
    """The process's name: one of OFFSETS."""

    host: str = "127.0.0.1"
    """Address that gRPC and metrics bind to; off loopback, TLS files are required."""
    grpc_base: Port = 50050
    """First gRPC port: the gateway's; preprocess, retrieve, infer and postprocess follow."""
    metrics_base: Port = 9100
    """First port of metrics and ``/health``, in the same order; 0 switches them off."""
    data: Path = Path("var")
    """Where everything durable lives."""

    log_level: LogLevel = Field(
        "INFO", validation_alias=AliasChoices("RAGMESH_LOG_LEVEL", "LOG_LEVEL")
    )
    """The least severe lines that are logged: DEBUG, INFO, WARNING, ERROR or CRITICAL."""
    log_user_text: bool = False
    """Let exception messages, which may quote prompts and passages, into the log."""
    otel_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("RAGMESH_OTEL_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    )
    """Where traces go, by OTLP over gRPC; unset: none are made."""
    reflection: bool = True
    """Whether gRPC servers describe themselves to tools such as grpcurl."""

    tls_dir: Path | None = None
    """Directory with ca.crt, <service>.crt and <service>.key (or tls.crt and tls.key)."""
    tls_ca: Path | None = None
    """The authority's certificate, instead of the directory's."""
    tls_cert: Path | None = None
    """This process's certificate, instead of the directory's."""
    tls_key: Path | None = None
    """This process's private key, instead of the directory's."""
    trusted_peers: CommaSeparated = ("gateway", "worker")
    """Certificate names whose tenant metadata is believed, separated by commas."""

    drain_delay: Seconds = 0.2
    """Seconds between NOT_SERVING and refusing new calls, for load balancers to notice."""
    drain_grace: Seconds = 10.0
    """Seconds that running calls get to finish."""
    max_connection_age: Seconds = 300.0
    """Seconds after which a client is asked to reconnect, and so finds new pods."""
    max_stream_seconds: Seconds = 3600.0
    """The longest a stream may live past its connection's age."""

    @property
    def grpc_port(self) -> int:
        return self.grpc_port_of(self.service)

    @property
    def metrics_port(self) -> int | None:
        """This process's metrics port, or None when the endpoint is off."""
        return self.metrics_base + OFFSETS[self.service] if self.metrics_base else None

    @property
    def address(self) -> str:
        """``host:port`` that this process's gRPC server binds to."""
        return join_host_port(self.host, self.grpc_port)

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def tls(self) -> TlsFiles | None:
        """This process's TLS files: the single variables over the directory; None without TLS."""
        base = files_in(self.tls_dir, self.service) if self.tls_dir else None
        ca = self.tls_ca or (base and base.ca)
        cert = self.tls_cert or (base and base.cert)
        key = self.tls_key or (base and base.key)
        return TlsFiles(ca, cert, key) if ca and cert and key else None

    def grpc_port_of(self, service: str) -> int:
        return self.grpc_base + OFFSETS[service]

    def target_of(self, service: str) -> str:
        """Default target of another service of a mesh on one machine."""
        return join_host_port(self.host, self.grpc_port_of(service))


def join_host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


S = TypeVar("S", bound=BaseSettings)


def load(cls: type[S]) -> S:
    """Read the settings, or say on one line each what is wrong and exit with status 2."""
    try:
        return cls()
    except ValidationError as error:
        problems = [_problem(cls, dict(item)) for item in error.errors(include_url=False)]
    except SettingsError as error:
        problems = [str(error)]
    for problem in problems:
        sys.stderr.write(f"settings: {problem}\n")
    raise SystemExit(EXIT_MISCONFIGURED)


def _problem(cls: type[BaseSettings], item: dict[str, Any]) -> str:
    accepted = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:  # a rule across fields, whose input is every setting, secrets too
        return accepted
    name, secret = _variable(cls, str(item["loc"][0]))
    if item["type"] == "missing":
        return f"{name} is required"
    shown = "(a secret)" if secret else repr(item["input"])
    return f"{name}={shown} is not accepted: {accepted[:1].lower()}{accepted[1:]}"


def _variable(cls: type[BaseSettings], location: str) -> tuple[str, bool]:
    """The variable that was at fault, and whether its value is a secret."""
    for name, field in cls.model_fields.items():
        names = variables_of(cls, name)
        if location == name or location.upper() in names:
            secret = SecretStr in (field.annotation, *get_args(field.annotation))
            present = [variable for variable in names if variable in os.environ]
            return (present or names)[0], secret
    return location, False


def variables_of(cls: type[BaseSettings], field: str) -> list[str]:
    """The variables that set a field, the strongest first."""
    alias = cls.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice).upper() for choice in alias.choices]
    if isinstance(alias, str):
        return [alias.upper()]
    return [f"{cls.model_config.get('env_prefix', '')}{field}".upper()]
