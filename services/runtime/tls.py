"""Mutual TLS from files: a CA and one certificate per service, named after the service."""

from dataclasses import dataclass
from pathlib import Path

import grpc

from services.runtime.errors import FailedPrecondition


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


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that demand a client certificate of the same CA.

    Raises:
        FailedPrecondition: TLS_FILE_UNREADABLE.
    """
    pair = (_read(files.key), _read(files.cert))
    return grpc.ssl_server_credentials(
        [pair], root_certificates=_read(files.ca), require_client_auth=True
    )


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Credentials that trust the CA alone and show this process's certificate.

    Raises:
        FailedPrecondition: TLS_FILE_UNREADABLE.
    """
    return grpc.ssl_channel_credentials(_read(files.ca), _read(files.key), _read(files.cert))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FailedPrecondition(
            "TLS_FILE_UNREADABLE",
            f"The TLS file {path} cannot be read ({error.strerror}); "
            "`ragmesh keys` writes a CA and one certificate per service.",
        ) from error
