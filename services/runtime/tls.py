"""Which files make mutual TLS: a CA and one certificate per service, named after the service."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the CA that signs every service, and this process's certificate and key."""

    ca: Path
    cert: Path
    key: Path


def files_in(directory: Path, service: str) -> TlsFiles:
    """The files of a service in a directory.

    ``ca.crt`` with ``<service>.crt`` and ``<service>.key``, as ``ragmesh keys`` writes them, or
    with ``tls.crt`` and ``tls.key``, as a Kubernetes TLS Secret mounts them.
    """
    stem = service if (directory / f"{service}.crt").exists() else "tls"
    return TlsFiles(directory / "ca.crt", directory / f"{stem}.crt", directory / f"{stem}.key")
