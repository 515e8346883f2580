"""The gateway's process: REST and RagService in one event loop, started and drained together."""

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager, nullcontext

import uvicorn
import uvloop

from gateway.app import create_app
from gateway.audit import AuditLog
from gateway.auth import Authenticator
from gateway.clients import connect_mesh
from gateway.edge.rules import EdgeRules
from gateway.jwks import OidcIssuer
from gateway.limits.limiter import Limiter
from gateway.pipeline import Pipeline
from gateway.ragservice import SERVICE_NAME, RagServicer
from gateway.revocations import Revocations
from gateway.settings import GatewaySettings
from gateway.state import State
from gateway.store.audit import AuditStore
from gateway.store.database import open_database
from gateway.store.revocations import RevocationStore
from gateway.store.sessions import SessionStore
from gateway.store.usage import UsageStore
from gateway.tenants import Tenants
from gateway.usage import UsageMeter
from ragmesh.gateway.v1 import gateway_pb2_grpc
from services.runtime.errors import FailedPrecondition, InvalidArgument, RagmeshError, Unimplemented
from services.runtime.logs import configure_logs
from services.runtime.metrics import MetricsServer
from services.runtime.server import Service, serving
from services.runtime.settings import EXIT_MISCONFIGURED, join_host_port, load
from services.runtime.traces import configure_traces

log = logging.getLogger(__name__)

BACKLOG = 2048


class RestServer(uvicorn.Server):
    """uvicorn, with signals left to this process."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises:
        RagmeshError: the gateway cannot start as it is configured.
    """
    configure_logs("gateway", settings.log_level, user_text=settings.log_user_text)
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger().level))
    flush_traces = configure_traces("gateway", settings.otel_endpoint)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    port = settings.metrics_port
    try:
        with MetricsServer(settings.host, port, "gateway") if port else nullcontext() as metrics:
            async with AsyncExitStack() as stack:
                state = await build(settings, stack)
                listener = listen(settings)
                stack.callback(listener.close)
                rest = await start_rest(state, stack, listener)
                await stack.enter_async_context(
                    serving(service(state), settings, metrics=metrics, stop=stop)
                )
                await wait(stop, rest)
    finally:
        await asyncio.to_thread(flush_traces)
        log.info("stopped")


async def build(settings: GatewaySettings, stack: AsyncExitStack) -> State:
    """Everything that both faces share; the stack closes it."""
    engine = await open_database(settings.store_url)
    stack.push_async_callback(engine.dispose)
    mesh = connect_mesh(settings)
    stack.push_async_callback(mesh.aclose)
    sessions = SessionStore(engine)
    usage = UsageMeter(UsageStore(engine))
    usage.start()
    stack.push_async_callback(usage.aclose)
    audit = AuditLog(AuditStore(engine))
    secret = settings.secret_key
    credentials = settings.credentials
    revocations = Revocations(RevocationStore(engine))
    await revocations.start()
    stack.push_async_callback(revocations.aclose)
    oidc = open_oidc(settings)
    if oidc is not None:
        await oidc.start()
        stack.push_async_callback(oidc.aclose)
    limiter = Limiter(settings, None if settings.edge == "kong" else credentials)
    await limiter.start()
    stack.push_async_callback(limiter.aclose)
    return State(
        settings=settings,
        authenticator=Authenticator(
            credentials,
            secret=secret.get_secret_value() if secret else None,
            leeway=settings.token_leeway,
            max_lifetime=settings.token_max_lifetime,
            revocations=revocations,
            oidc=oidc,
        ),
        limiter=limiter,
        pipeline=Pipeline(mesh, sessions, settings, limiter, usage=usage, audit=audit),
        sessions=sessions,
        usage=usage,
        usage_store=UsageStore(engine),
        audit=AuditStore(engine),
        tenants=Tenants(mesh, engine, sessions, meter=usage, audit=audit),
        started_at=int(time.time()),
        edge=None if settings.edge == "kong" else EdgeRules(credentials),
    )


def open_oidc(settings: GatewaySettings) -> OidcIssuer | None:
    """The OpenID provider, if one is configured.

    Raises:
        FailedPrecondition: OIDC_URL_INVALID, OIDC_ISSUER_MISSING.
    """
    if settings.oidc_jwks_url is None:
        return None
    if not settings.oidc_issuer:
        raise FailedPrecondition(
            "OIDC_ISSUER_MISSING", "RAGMESH_OIDC_JWKS_URL needs RAGMESH_OIDC_ISSUER beside it."
        )
    return OidcIssuer(
        url=settings.oidc_jwks_url,
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        consumer=settings.oidc_consumer,
        refresh=settings.oidc_refresh,
    )


def service(state: State) -> Service:
    """RagService, for the chassis."""
    servicer = RagServicer(state.pipeline, state.authenticator, state.limiter, state.settings)
    return Service(
        name="gateway",
        register=lambda server: gateway_pb2_grpc.add_RagServiceServicer_to_server(servicer, server),
        service_names=(SERVICE_NAME,),
        tenant_from_metadata=False,
    )


async def start_rest(
    state: State, stack: AsyncExitStack, listener: socket.socket
) -> "asyncio.Task[None]":
    """Listen for REST; the stack drains it: running requests may end, new ones are refused."""
    settings = state.settings
    config = uvicorn.Config(
        create_app(state),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_grace)),
    )
    server = RestServer(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))

    async def drain() -> None:
        server.should_exit = True
        await task

    stack.push_async_callback(drain)
    host, port = listener.getsockname()[:2]
    log.info("listening", extra={"address": join_host_port(host, port)})
    return task


def listen(settings: GatewaySettings) -> socket.socket:
    """The REST socket.

    Raises:
        FailedPrecondition: ADDRESS_IN_USE.
    """
    family = socket.AF_INET6 if ":" in settings.rest_host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.rest_host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise FailedPrecondition(
            "ADDRESS_IN_USE",
            f"The address {settings.rest_host}:{settings.port} cannot be bound "
            f"({error.strerror}); set RAGMESH_PORT to a free port.",
        ) from error
    return listener


async def wait(stop: asyncio.Event, rest: "asyncio.Task[None]") -> None:
    """Until a signal comes, or the REST server ends by itself, which is a failure."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((stopped, rest), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not stop.is_set():
        rest.result()


def main() -> None:
    """Run, or say on one line why not: status 2 where a restart would not help."""
    settings = load(GatewaySettings)
    try:
        uvloop.run(serve(settings))
    except RagmeshError as error:
        sys.stderr.write(f"gateway: {error.message}\n")
        hopeless = isinstance(error, InvalidArgument | FailedPrecondition | Unimplemented)
        raise SystemExit(EXIT_MISCONFIGURED if hopeless else 1) from None


if __name__ == "__main__":
    main()
