"""Whom to believe about the tenant."""

import ipaddress
from typing import Any
from urllib.parse import unquote

import grpc


def is_trusted_peer(context: grpc.aio.ServicerContext[Any, Any], trusted: frozenset[str]) -> bool:
    """Whether the peer may say on whose behalf it calls.

    Under mTLS its certificate decides, wherever it calls from: a name in `trusted` must be among
    the certificate's. Without TLS the peer must be on this machine.
    """
    identities = context.peer_identities()
    if identities is not None:
        return any(identity.decode(errors="replace") in trusted for identity in identities)
    return is_local(context.peer())


def is_local(peer: str) -> bool:
    """Whether a gRPC peer, such as ``ipv4:127.0.0.1:4000``, is on this machine."""
    scheme, _, address = peer.partition(":")
    if scheme in {"unix", "unix-abstract"}:
        return True
    host = unquote(address).rpartition(":")[0].strip("[]")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
