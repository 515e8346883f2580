"""Channels between the mesh's processes. Retries live here and nowhere else."""

import json
from collections.abc import Iterable
from typing import Any

import grpc

from services.runtime.credentials import channel_credentials
from services.runtime.limits import MAX_MESSAGE_BYTES
from services.runtime.propagation import MetadataSource, client_interceptors, outgoing_metadata
from services.runtime.tls import TlsFiles
from services.runtime.version import VERSION

PING_AFTER_MS = 10_000
"""Silence on a call's connection after which the service is pinged."""
PING_TIMEOUT_MS = 8_000


def connect(
    target: str,
    *,
    tls: TlsFiles | None = None,
    authority: str | None = None,
    idempotent: Iterable[str] = (),
    metadata: MetadataSource = outgoing_metadata,
) -> grpc.aio.Channel:
    """A channel to a service. It connects when first used and reconnects by itself.

    A call to a service that is down fails with UNAVAILABLE at once (after the retries, for an
    idempotent method); nothing waits for it to come back.

    Args:
        target: ``host:port``; in Kubernetes ``dns:///name:port`` of a headless Service.
        tls: this process's TLS files; None for plaintext, which only loopback speaks.
        authority: the name in the service's certificate, where the target is not that name.
        idempotent: unary methods that may run twice, as ``pkg.Service/Method``.
        metadata: what to add to each call that has not set it.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.primary_user_agent", f"ragmesh/{VERSION}"),
        ("grpc.service_config", json.dumps(service_config(idempotent))),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # A service that hangs, its connection open, fails its calls within about 20 seconds. It
        # is the ping's timeout that counts, a minute by itself, whatever the keepalive's is.
        ("grpc.keepalive_time_ms", PING_AFTER_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
        # A restarted service is found within about a second, on its old address or a new one.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        # No sharing of connections and their back-off with other channels of the process.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    interceptors = client_interceptors(metadata)
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    if authority:
        options.append(("grpc.ssl_target_name_override", authority))
    return grpc.aio.secure_channel(
        target, channel_credentials(tls), options=options, interceptors=interceptors
    )


def service_config(idempotent: Iterable[str] = ()) -> dict[str, Any]:
    """The gRPC service config: balance over all addresses; retry what may run twice.

    UNAVAILABLE alone is retried, and a service that sheds load forbids even that by
    ``grpc-retry-pushback-ms: -1``. The throttle stops retries while most calls fail.
    """
    config: dict[str, Any] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.2},
    }
    names = [
        {"service": service, "method": method}
        for service, _, method in (path.lstrip("/").rpartition("/") for path in idempotent)
    ]
    if names:
        retry = {
            "maxAttempts": 3,
            "initialBackoff": "0.05s",
            "maxBackoff": "0.5s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        config["methodConfig"] = [{"name": names, "retryPolicy": retry}]
    return config
