"""Where Qdrant is, and how collections are made in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from services.runtime.errors import FailedPrecondition

LOCAL = "qdrant+local"
MEMORY = ":memory:"
_PORTS = {"http": 6333, "https": 6333, "grpc": 6334, "grpcs": 6334}

Quantization = Literal["none", "scalar", "binary"]


@dataclass(frozen=True, slots=True)
class QdrantOptions:
    """Settings of a server or cluster."""

    api_key: str = ""
    ca: Path | None = None
    """Certificates in PEM that sign the server's; None for those that the machine trusts."""
    timeout: float = 10.0
    """Seconds of one call, at most."""
    prefix: str = "ragmesh"
    """Qdrant collections are named after it, so that several meshes may share a cluster."""
    shards: int = 0
    """Shards of a Qdrant collection; 0 leaves it to Qdrant, one for each node."""
    replicas: int = 1
    """Copies of each shard."""
    write_replicas: int = 0
    """Copies that must have a write before it is acknowledged; 0: more than half."""
    on_disk: bool = False
    """Whether vectors are read from disk, and only their index and quantised copies held."""
    quantization: Quantization = "none"
    hnsw_m: int = 16
    hnsw_ef_construct: int = 128
    hnsw_ef: int = 0
    """Candidates that a search keeps; 0 leaves it to Qdrant."""
    indexed_metadata: tuple[str, ...] = ()
    """Metadata paths that get an index."""
    lease: float = 900.0
    """Seconds after which a document that nobody goes on writing is given up."""

    @property
    def acknowledging(self) -> int:
        """Copies that acknowledge a write."""
        return self.write_replicas or self.replicas // 2 + 1


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address."""

    host: str
    port: int
    path: str
    tls: bool
    grpc: bool

    @property
    def url(self) -> str:
        """As the client wants it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.path}"


def parse(url: str) -> Address:
    """The address in ``http://``, ``https://``, ``grpc://`` or ``grpcs://HOST[:PORT]``.

    Raises:
        FailedPrecondition: VECTOR_URL_INVALID.
    """
    try:
        parts = urlsplit(url)
        scheme, port = parts.scheme.lower(), parts.port
    except ValueError:
        parts, scheme, port = urlsplit(""), "", None
    grpc = scheme.startswith("grpc")
    path = parts.path.rstrip("/")
    if (
        scheme not in _PORTS or not parts.hostname or parts.username or parts.query
        or parts.fragment or (grpc and path)
    ):  # fmt: skip
        raise FailedPrecondition(
            "VECTOR_URL_INVALID",
            "VECTOR_URL of a Qdrant is grpc://HOST:6334 or http://HOST:6333, with grpcs:// or "
            "https:// for TLS, and without a user, a query or, for gRPC, a path. The key goes into "
            "VECTOR_API_KEY.",
        )
    tls = scheme in ("https", "grpcs")
    return Address(parts.hostname, port or _PORTS[scheme], path, tls, grpc)
