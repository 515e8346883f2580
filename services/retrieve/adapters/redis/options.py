"""How a Redis is reached, and what is asked of it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """Settings of a Redis that holds collections."""

    password: str = ""
    ca: Path | None = None
    """Certificates in PEM that sign the server's; None for those that the machine trusts."""
    timeout: float = 10.0
    """Seconds of one call, and of the wait for its disk."""
    prefix: str = "ragmesh"
    """Keys begin with it, so that several meshes may share a server."""
    durable: bool = True
    """Whether a server that may lose what is acknowledged is refused."""
