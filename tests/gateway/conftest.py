"""A gateway over fake services: REST on a real socket, RagService on a real server."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx
import jwt
import pytest
from pydantic import SecretStr

from gateway.__main__ import listen, start_rest
from gateway.audit import AuditLog
from gateway.auth import Authenticator
from gateway.clients import Mesh
from gateway.edge.rules import EdgeRules
from gateway.limits.limiter import Limiter
from gateway.pipeline import Pipeline
from gateway.ragservice import RagServicer
from gateway.settings import SERVICES, GatewaySettings
from gateway.state import State
from gateway.store.audit import AuditStore
from gateway.store.database import open_database
from gateway.store.sessions import SessionStore
from gateway.store.usage import UsageStore
from gateway.tenants import Tenants
from gateway.usage import UsageMeter
from ragmesh.gateway.v1 import gateway_pb2_grpc
from services.runtime.channel import connect
from services.runtime.testing import serve_for_test
from tests.gateway.mesh import FakeMesh

SECRET = "a secret that is long enough for HS256"
ALL_SCOPES = "chat search documents:read documents:write models:read"


def token(*, subject: str = "alice", tenant: str = "acme", scope: str = ALL_SCOPES, **more) -> str:
    claims = {
        "iss": "embedded",
        "sub": subject,
        "tenant": tenant,
        "scope": scope,
        "exp": int(time.time()) + 600,
        **more,
    }
    return jwt.encode(claims, SECRET, algorithm="HS256")


@dataclass
class Gateway:
    """A running gateway and what it runs on."""

    mesh: FakeMesh
    state: State
    base_url: str
    client: httpx.AsyncClient
    rag: gateway_pb2_grpc.RagServiceStub

    @property
    def port(self) -> int:
        return int(self.base_url.rpartition(":")[2])

    async def post(self, path: str, json: object) -> httpx.Response:
        return await self.client.post(path, json=json)

    async def collection(self, name: str = "docs") -> None:
        """Create a collection."""
        response = await self.post("/v1/collections", {"name": name})
        assert response.status_code == 201, response.text


@asynccontextmanager
async def running(
    tmp_path,
    *,
    down: tuple[str, ...] = (),
    edge_file: str = "_format_version: '3.0'\nconsumers: []\n",
    **settings,
) -> AsyncIterator[Gateway]:
    """A gateway on a free port.

    Args:
        down: services that nobody serves.
        edge_file: the rendered Kong file, whose limits hold here.
    """
    async with AsyncExitStack() as stack:
        credentials = tmp_path / "kong.yml"
        credentials.write_text(edge_file)
        configured = GatewaySettings(
            data=tmp_path, port=0, secret_key=SecretStr(SECRET), **settings
        )
        mesh = FakeMesh()
        served = await stack.enter_async_context(serve_for_test(mesh.registrations(), caller=None))
        nobody = await stack.enter_async_context(connect("127.0.0.1:1"))
        channels = {service: nobody if service in down else served for service in SERVICES}
        engine = await open_database(configured.store_url)
        stack.push_async_callback(engine.dispose)
        sessions = SessionStore(engine)
        usage = UsageMeter(UsageStore(engine))
        usage.start()
        stack.push_async_callback(usage.aclose)
        audit = AuditLog(AuditStore(engine))
        services = Mesh(channels)
        limiter = Limiter(configured, None if configured.edge == "kong" else credentials)
        await limiter.start()
        stack.push_async_callback(limiter.aclose)
        state = State(
            settings=configured,
            authenticator=Authenticator(credentials, secret=SECRET),
            limiter=limiter,
            pipeline=Pipeline(services, sessions, configured, limiter, usage=usage, audit=audit),
            sessions=sessions,
            usage=usage,
            usage_store=UsageStore(engine),
            audit=AuditStore(engine),
            tenants=Tenants(services, engine, sessions, meter=usage, audit=audit),
            started_at=1_700_000_000,
            edge=None if configured.edge == "kong" else EdgeRules(credentials),
        )
        listener = listen(configured)
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        await start_rest(state, stack, listener)
        servicer = RagServicer(state.pipeline, state.authenticator, limiter, configured)
        rag = await stack.enter_async_context(
            serve_for_test(
                [(gateway_pb2_grpc.add_RagServiceServicer_to_server, servicer)],
                caller=None,
                tenant_from_metadata=False,
            )
        )
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=base_url, headers={"authorization": f"Bearer {token()}"}, timeout=20
            )
        )
        stub = gateway_pb2_grpc.RagServiceStub(rag)
        yield Gateway(mesh, state, base_url, client, stub)


@pytest.fixture
async def gateway(tmp_path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as started:
        yield started
