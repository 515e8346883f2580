"""Whether the processes of a mesh answer: grpc.health.v1 on each, and the gateway's report."""

import asyncio
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cli.settings import CommandSettings
from services.runtime.channel import connect

PROBE_TIMEOUT = 2.0
"""Seconds."""


async def is_serving(settings: CommandSettings, service: str) -> bool:
    """Whether a service's gRPC server says SERVING for the whole process."""
    async with connect(
        settings.probe_target(service), tls=settings.tls, authority=service
    ) as channel:
        # The typing package knows the stub of blocking channels only.
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_TIMEOUT)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def reaches_all(base_url: str) -> bool:
    """Whether every service answers the gateway. A model's server that is not there yet may take
    minutes: the mesh starts without it."""
    services = await _reported(base_url)
    return services is not None and all(found["version"] for found in services.values())


async def unavailable(base_url: str) -> list[str]:
    """The services that the gateway reports as not available."""
    services = await _reported(base_url) or {}
    return [name for name, found in services.items() if not found["available"]]


async def _reported(base_url: str) -> dict[str, Any] | None:
    report = await gateway_health(base_url) or {}
    services = report.get("services")  # absent when something else answers on this port
    return services if isinstance(services, dict) else None


async def wait_serving(settings: CommandSettings, service: str, *, interval: float = 0.25) -> None:
    """Return when the service serves; the gateway also has to reach the others."""
    while True:
        up = await is_serving(settings, service)
        if up and (service != "gateway" or await reaches_all(settings.base_url)):
            return
        await asyncio.sleep(interval)


async def gateway_health(base_url: str) -> dict[str, Any] | None:
    """The gateway's own report; None when it does not answer."""
    try:
        async with httpx.AsyncClient(timeout=PROBE_TIMEOUT, trust_env=False) as client:
            answer = await client.get(f"{base_url}/health")
            report = answer.json()
    except (httpx.HTTPError, ValueError):
        return None
    return report if isinstance(report, dict) else None
