"""A service's process from its first log line to its last trace."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TypeVar

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.runtime.credentials import server_credentials
from services.runtime.errors import (
    FailedPrecondition,
    InvalidArgument,
    RagmeshError,
    Unimplemented,
)
from services.runtime.health import Health
from services.runtime.interceptors import server_interceptors
from services.runtime.limits import MAX_MESSAGE_BYTES
from services.runtime.logs import configure_logs
from services.runtime.metrics import MetricsServer
from services.runtime.settings import EXIT_MISCONFIGURED, RuntimeSettings
from services.runtime.traces import configure_traces
from services.runtime.version import VERSION

log = logging.getLogger(__name__)

S = TypeVar("S", bound=RuntimeSettings)

SWITCH_SECONDS = 0.0005
"""After so long a thread lets the event loop go on: at the interpreter's own 5 ms, three steps of a
call beside a busy thread take 15 ms."""


async def nothing() -> None:
    """A hook that has nothing to do."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a service hands to the chassis."""

    name: str
    register: Callable[[grpc.aio.Server], None]
    """Adds the servicers to the server."""
    service_names: tuple[str, ...]
    """Full names of the proto services, for health and reflection."""
    ready: Callable[[], Awaitable[None]] = nothing
    """Returns when the adapters can work; until then health says NOT_SERVING."""
    availability: Callable[[], AsyncIterator[bool]] | None = None
    """Yields, once ready, whether the adapters still can work, each time that changes; health
    follows."""
    aclose: Callable[[], Awaitable[None]] = nothing
    """Lets go of what the adapters hold; called once, also when the start failed."""
    tenant_from_metadata: bool = True
    """False for the gateway, whose callers prove their tenant with a token."""


def run(build: Callable[[S], Service], settings: S) -> None:
    """The whole of a ``__main__``: build the service inside the event loop and serve it.

    When the start fails the process says on one line why and exits: with status 2 where a restart
    would not help, else with 1.
    """

    async def main() -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        await serve(build(settings), settings)

    try:
        uvloop.run(main())
    except RagmeshError as error:
        sys.stderr.write(f"{settings.service}: {error.message}\n")
        hopeless = isinstance(error, InvalidArgument | FailedPrecondition | Unimplemented)
        raise SystemExit(EXIT_MISCONFIGURED if hopeless else 1) from None


async def serve(service: Service, settings: RuntimeSettings) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises:
        RagmeshError: the service cannot start as it is configured.
    """
    configure_logs(service.name, settings.log_level, user_text=settings.log_user_text)
    flush_traces = configure_traces(service.name, settings.otel_endpoint)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    port = settings.metrics_port
    try:
        with MetricsServer(settings.host, port, service.name) if port else nullcontext() as metrics:
            async with serving(service, settings, metrics=metrics, stop=stop):
                _settle()
                await stop.wait()
    except RagmeshError:
        raise
    except Exception:
        log.exception("failed")
        raise SystemExit(1) from None
    finally:
        await asyncio.to_thread(flush_traces)
        log.info("stopped")


def _settle() -> None:
    """Take what the start has made, and what lives as long, out of garbage collection's way.

    Going through modules, tables and vocabularies stops the process for 50 to 80 ms each time.
    """
    gc.collect()
    gc.freeze()


@asynccontextmanager
async def serving(
    service: Service,
    settings: RuntimeSettings,
    *,
    metrics: MetricsServer | None = None,
    stop: asyncio.Event | None = None,
) -> AsyncIterator[str]:
    """Serve for the length of the block, entered once SERVING, and drain after it.

    For a process that serves something else besides, as the gateway does; others use `serve`.

    Args:
        service: what to serve.
        settings: where and how.
        metrics: the endpoint whose ``/health`` follows this server's.
        stop: when set while `ready` still runs, `ready` is cancelled and the block entered at once.

    Yields:
        The ``host:port`` that the server is bound to.

    Raises:
        FailedPrecondition: TLS_REQUIRED, TLS_FILE_UNREADABLE or ADDRESS_IN_USE.
    """
    health_servicer = Health(service.service_names)
    await health_servicer.report(serving=False)
    try:
        server = build_server(service, settings, health_servicer)
        await server.start()
        log.info("started", extra={"address": settings.address, "version": VERSION})
        following: asyncio.Task[None] | None = None
        try:
            if await _ready(service, stop):
                await health_servicer.report(serving=True)
                if metrics:
                    metrics.serving = True
                log.info("serving", extra={"address": settings.address})
                following = asyncio.create_task(_follow(service, health_servicer, metrics))
            yield settings.address
        finally:
            log.info("draining")
            if following:
                following.cancel()
            if metrics:
                metrics.serving = False
            await health_servicer.drain()
            await asyncio.sleep(settings.drain_delay)
            health_servicer.release_watchers()
            await server.stop(settings.drain_grace)
    finally:
        await service.aclose()


def build_server(
    service: Service, settings: RuntimeSettings, health_servicer: Health
) -> grpc.aio.Server:
    """A bound server with everything registered, not yet started. Raises as `bind` does."""
    server = grpc.aio.server(
        interceptors=server_interceptors(
            settings.trusted_peers, tenant_from_metadata=service.tenant_from_metadata
        ),
        options=server_options(settings),
    )
    service.register(server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    if settings.reflection:
        names = (*service.service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    bind(server, settings)
    return server


def bind(server: grpc.aio.Server, settings: RuntimeSettings) -> None:
    """Bind to the settings' address, with mTLS when there are files for it.

    Raises:
        FailedPrecondition: TLS_REQUIRED, off loopback without TLS files; TLS_FILE_UNREADABLE;
            ADDRESS_IN_USE.
    """
    tls = settings.tls
    if tls is None and not settings.is_loopback:
        raise FailedPrecondition(
            "TLS_REQUIRED",
            f"RAGMESH_HOST={settings.host} is not loopback and needs mutual TLS: run "
            "`ragmesh keys` and set RAGMESH_TLS_DIR to the directory that it writes, or set "
            "RAGMESH_HOST=127.0.0.1.",
        )
    credentials = server_credentials(tls) if tls else None
    try:
        if credentials is None:
            server.add_insecure_port(settings.address)
        else:
            server.add_secure_port(settings.address, credentials)
    except RuntimeError as error:
        raise FailedPrecondition(
            "ADDRESS_IN_USE",
            f"The address {settings.address} cannot be bound; is another mesh running? "
            "Set RAGMESH_GRPC_BASE to a free range of ports.",
        ) from error


def server_options(settings: RuntimeSettings) -> list[tuple[str, int]]:
    """gRPC server arguments; durations in milliseconds."""
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # Two processes must not share a port by accident: the second start has to fail.
        ("grpc.so_reuseport", 0),
        # The server finds dead clients, and permits the pings of `channel.connect`.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.ping_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        # Clients reconnect now and then and so find new pods; running streams outlive that.
        ("grpc.max_connection_age_ms", round(settings.max_connection_age * 1000)),
        ("grpc.max_connection_age_grace_ms", round(settings.max_stream_seconds * 1000)),
    ]


async def _follow(service: Service, health_servicer: Health, metrics: MetricsServer | None) -> None:
    """Keep health in step with the service's availability."""
    if service.availability is None:
        return
    async for available in service.availability():
        log.warning("available again" if available else "not available")
        await health_servicer.report(serving=available)
        if metrics:
            metrics.serving = available


async def _ready(service: Service, stop: asyncio.Event | None) -> bool:
    """Await the service's `ready`; False when `stop` came first."""
    ready = asyncio.ensure_future(service.ready())
    stopped = asyncio.ensure_future((stop or asyncio.Event()).wait())
    try:
        await asyncio.wait((ready, stopped), return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
            return True
        return False
    finally:
        for task in (ready, stopped):
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
