"""Free ports for servers whose port is a setting."""

import socket

from services.runtime.settings import OFFSETS


def free_base(service: str) -> int:
    """A base such that the service's own port, base + offset, was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port - OFFSETS[service]
