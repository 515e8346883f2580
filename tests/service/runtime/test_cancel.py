"""A caller that leaves stops the work, for every kind of method, and is counted."""

import asyncio

import grpc
import pytest
from prometheus_client import REGISTRY

from tests.service.runtime.echo import KINDS, NAME, EchoServicer, send, start


def cancelled(method: str) -> float:
    labels = {"grpc_service": NAME, "grpc_method": method}
    return REGISTRY.get_sample_value("ragmesh_grpc_cancelled_total", labels) or 0.0


async def until_cleaned(echo: EchoServicer, kind: str) -> None:
    await asyncio.wait_for(echo.ended.wait(), 5)
    assert echo.cleaned[kind] == 1
    await asyncio.sleep(0.01)  # the interceptors further out


@pytest.mark.parametrize("kind", KINDS)
async def test_cancel_reaches_the_servicer(
    kind: str, echo: EchoServicer, channel: grpc.aio.Channel
) -> None:
    before = cancelled(kind)
    call = start(channel, kind, b"wait")
    reading = asyncio.ensure_future(call.read()) if kind in {"ServerStream", "BidiStream"} else None
    await asyncio.wait_for(echo.running.wait(), 5)
    call.cancel()
    await until_cleaned(echo, kind)
    assert cancelled(kind) == before + 1
    if reading:
        await asyncio.wait([reading])
        reading.cancelled() or reading.exception()


async def test_a_generator_stopped_at_its_yield_is_closed(
    echo: EchoServicer, channel: grpc.aio.Channel
) -> None:
    call = start(channel, "ServerStream", b"flood")
    assert await call.read() == b"first"
    await asyncio.wait_for(echo.running.wait(), 5)
    await asyncio.sleep(0.05)  # the flood fills the window and stops inside a write
    call.cancel()
    await until_cleaned(echo, "ServerStream")


async def test_a_task_that_is_cancelled_cancels_its_call(
    echo: EchoServicer, channel: grpc.aio.Channel
) -> None:
    task = asyncio.ensure_future(send(channel, "Unary", b"wait"))
    await asyncio.wait_for(echo.running.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_cleaned(echo, "Unary")


async def test_a_deadline_ends_both_sides(echo: EchoServicer, channel: grpc.aio.Channel) -> None:
    labels = {
        "grpc_type": "unary",
        "grpc_service": NAME,
        "grpc_method": "Unary",
        "grpc_code": "DEADLINE_EXCEEDED",
    }
    before = REGISTRY.get_sample_value("grpc_server_handled_total", labels) or 0.0
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await send(channel, "Unary", b"wait", timeout=0.1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until_cleaned(echo, "Unary")
    assert REGISTRY.get_sample_value("grpc_server_handled_total", labels) == before + 1
