"""gRPC credentials from TLS files: both ends show a certificate of the mesh's own CA."""

from pathlib import Path

import grpc

from services.runtime.errors import FailedPrecondition
from services.runtime.tls import TlsFiles


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
