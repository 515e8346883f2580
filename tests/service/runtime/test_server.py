"""The life of a server: health, reflection, drain, and starts that must fail."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.runtime.channel import connect
from services.runtime.errors import FailedPrecondition
from services.runtime.server import Service, serving
from services.runtime.settings import RuntimeSettings
from tests.service.runtime.echo import NAME, EchoServicer, add_to_server, send
from tests.service.runtime.ports import free_base

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class EchoSettings(RuntimeSettings):
    service: ClassVar[str] = "infer"


@dataclass
class Life:
    """An echo service that remembers what the chassis asked of it."""

    echo: EchoServicer = field(default_factory=EchoServicer)
    loaded: asyncio.Event = field(default_factory=asyncio.Event)
    closed: int = 0

    async def aclose(self) -> None:
        self.closed += 1

    async def ready(self) -> None:
        await self.loaded.wait()

    def service(self) -> Service:
        return Service(
            name="infer",
            register=lambda server: add_to_server(self.echo, server),
            service_names=(NAME,),
            ready=self.ready,
            aclose=self.aclose,
        )


@pytest.fixture
def settings() -> EchoSettings:
    return EchoSettings(grpc_base=free_base("infer"), drain_delay=0.0, drain_grace=5.0)


@pytest.fixture
async def channel(settings: EchoSettings) -> AsyncIterator[grpc.aio.Channel]:
    async with connect(settings.address) as connected:
        yield connected


async def status(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    answer = await stub.Check(request, timeout=5, wait_for_ready=True)
    return int(answer.status)


async def run_until(
    life: Life, settings: EchoSettings, leave: asyncio.Event, entered: asyncio.Event
) -> None:
    async with serving(life.service(), settings):
        entered.set()
        await leave.wait()


async def test_health_follows_ready_and_drain(
    settings: EchoSettings, channel: grpc.aio.Channel
) -> None:
    life, leave, entered = Life(), asyncio.Event(), asyncio.Event()
    task = asyncio.ensure_future(run_until(life, settings, leave, entered))
    assert await status(channel) == NOT_SERVING
    assert await status(channel, NAME) == NOT_SERVING
    life.loaded.set()
    await asyncio.wait_for(entered.wait(), 5)
    assert (await status(channel), await status(channel, NAME)) == (SERVING, SERVING)

    waiting = asyncio.ensure_future(send(channel, "Unary", b"wait"))
    await asyncio.wait_for(life.echo.running.wait(), 5)
    leave.set()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(5):
            while True:  # calls are served until the drain's delay is over
                await send(channel, "Unary", b"hello")
    # CANCELLED: the call came in just before the server stopped taking calls.
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert not task.done()
    assert life.closed == 0  # adapters stay open while a call runs
    life.echo.release.set()
    assert await waiting == [b"wait"]
    await asyncio.wait_for(task, 5)
    assert life.closed == 1


async def test_during_the_drain_delay_health_is_down_and_calls_are_served(
    settings: EchoSettings, channel: grpc.aio.Channel
) -> None:
    settings = settings.model_copy(update={"drain_delay": 1.0})
    life, leave, entered = Life(), asyncio.Event(), asyncio.Event()
    life.loaded.set()
    task = asyncio.ensure_future(run_until(life, settings, leave, entered))
    assert await status(channel) == SERVING
    await asyncio.wait_for(entered.wait(), 5)
    leave.set()
    async with asyncio.timeout(5):
        while True:
            if await status(channel) == NOT_SERVING:
                break
    assert await send(channel, "Unary", b"hello") == [b"hello"]
    await task


async def test_what_outlives_the_grace_is_cancelled(
    settings: EchoSettings, channel: grpc.aio.Channel
) -> None:
    settings = settings.model_copy(update={"drain_grace": 0.2})
    life = Life()
    life.loaded.set()
    async with serving(life.service(), settings):
        waiting = asyncio.ensure_future(send(channel, "Unary", b"wait"))
        await asyncio.wait_for(life.echo.running.wait(), 5)
    with pytest.raises(grpc.aio.AioRpcError):
        await waiting
    assert life.echo.cleaned["Unary"] == 1


async def test_a_health_watcher_hears_the_drain_and_does_not_delay_it(
    settings: EchoSettings, channel: grpc.aio.Channel
) -> None:
    settings = settings.model_copy(update={"drain_grace": 60.0})
    life = Life()
    life.loaded.set()
    async with asyncio.timeout(30), serving(life.service(), settings):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        call = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await call.read()).status == SERVING
    assert (await call.read()).status == NOT_SERVING
    assert await call.read() is grpc.aio.EOF


async def test_stop_does_not_wait_for_ready(settings: EchoSettings) -> None:
    life, stop = Life(), asyncio.Event()
    stop.set()
    async with asyncio.timeout(5):
        async with serving(life.service(), settings, stop=stop):
            pass
    assert life.closed == 1


async def test_a_ready_that_fails_ends_the_start(settings: EchoSettings) -> None:
    class Broken(Life):
        async def ready(self) -> None:
            raise FailedPrecondition("MODEL_MISSING", "no model")

    life = Broken()
    with pytest.raises(FailedPrecondition, match="MODEL_MISSING"):
        async with serving(life.service(), settings):
            pytest.fail("must not get here")
    assert life.closed == 1


@pytest.mark.parametrize("on", [True, False])
async def test_reflection_is_by_setting(
    on: bool, settings: EchoSettings, channel: grpc.aio.Channel
) -> None:
    settings = settings.model_copy(update={"reflection": on})
    life = Life()
    life.loaded.set()

    async def question() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    async with serving(life.service(), settings):
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast(Any, channel))
        call = stub.ServerReflectionInfo(question(), timeout=5)
        if on:
            answer = await call.read()
            names = {service.name for service in answer.list_services_response.service}
            assert {NAME, "grpc.health.v1.Health"} <= names
        else:
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()


async def test_a_port_that_is_taken_stops_the_start(settings: EchoSettings) -> None:
    first, second = Life(), Life()
    first.loaded.set()
    async with serving(first.service(), settings):
        with pytest.raises(FailedPrecondition) as caught:
            async with serving(second.service(), settings):
                pytest.fail("must not get here")
    assert caught.value.reason == "ADDRESS_IN_USE"
    assert settings.address in caught.value.message
    assert second.closed == 1


async def test_off_loopback_without_tls_the_start_says_what_to_do(settings: EchoSettings) -> None:
    settings = settings.model_copy(update={"host": "0.0.0.0"})
    with pytest.raises(FailedPrecondition) as caught:
        async with serving(Life().service(), settings):
            pytest.fail("must not get here")
    assert caught.value.reason == "TLS_REQUIRED"
    assert "ragmesh keys" in caught.value.message


async def test_a_missing_tls_file_is_named(settings: EchoSettings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"tls_dir": tmp_path})
    with pytest.raises(FailedPrecondition) as caught:
        async with serving(Life().service(), settings):
            pytest.fail("must not get here")
    assert caught.value.reason == "TLS_FILE_UNREADABLE"
    assert str(tmp_path) in caught.value.message
