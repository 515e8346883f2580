"""Channels: what is retried, how fast a dead service is noticed and found again."""

import asyncio

import grpc
import pytest

from services.runtime.channel import connect
from services.runtime.limits import MAX_MESSAGE_BYTES
from services.runtime.status import error_from_rpc
from services.runtime.testing import serve_for_test
from tests.service.runtime.echo import NAME, EchoServicer, add_to_server, send


async def code_of(channel: grpc.aio.Channel, order: bytes) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await send(channel, "Unary", order, timeout=5)
    return error_from_rpc(caught.value).reason


async def test_unavailable_is_retried_where_a_method_may_run_twice(echo: EchoServicer) -> None:
    async with serve_for_test([(add_to_server, echo)], idempotent=[f"{NAME}/Unary"]) as channel:
        given = (("x-request-id", "r"),)
        with pytest.raises(grpc.aio.AioRpcError):
            await send(channel, "Unary", b"raw-unavailable", metadata=given)
    assert echo.calls["raw-unavailable"] == 3


async def test_nothing_else_is_retried(echo: EchoServicer, channel: grpc.aio.Channel) -> None:
    assert await code_of(channel, b"raw-unavailable") == "UNAVAILABLE"
    assert echo.calls["raw-unavailable"] == 1


@pytest.mark.parametrize(("order", "reason"), [("shed", "QUEUE_FULL"), ("down", "ENGINE_DOWN")])
async def test_what_a_service_sheds_is_not_retried(
    order: str, reason: str, echo: EchoServicer
) -> None:
    async with serve_for_test([(add_to_server, echo)], idempotent=[f"{NAME}/Unary"]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(channel, "Unary", order.encode())
    assert error_from_rpc(caught.value).reason == reason
    assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "-1"
    assert echo.calls[order] == 1


async def test_a_dead_service_is_noticed_at_once_and_found_again(echo: EchoServicer) -> None:
    async def serve(port: int) -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_to_server(echo, server)
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        return server, bound

    server, port = await serve(0)
    async with connect(f"127.0.0.1:{port}", idempotent=[f"{NAME}/Unary"]) as channel:
        assert await send(channel, "Unary", b"hello") == [b"hello"]
        await server.stop(None)
        assert await code_of(channel, b"hello") == "UNAVAILABLE"
        await asyncio.sleep(1)  # the channel tries again meanwhile, and waits longer each time
        server, _ = await serve(port)
        async with asyncio.timeout(30):
            while True:
                try:
                    await send(channel, "Unary", b"hello")
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)
    await server.stop(None)


async def test_a_message_beyond_the_limit_is_refused(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await send(channel, "Unary", b"x" * (MAX_MESSAGE_BYTES + 1))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
