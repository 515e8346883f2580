"""What the interceptors do around every kind of method, on a real server."""

import logging

import grpc
import pytest
from prometheus_client import REGISTRY

from services.runtime.context import Caller, caller_metadata
from services.runtime.status import error_from_rpc
from services.runtime.testing import serve_for_test
from tests.service.runtime.echo import KINDS, NAME, EchoServicer, add_to_server, send, start

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def handled(method: str, code: str) -> float:
    labels = {"grpc_service": NAME, "grpc_method": method, "grpc_code": code}
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        if metric.name == "grpc_server_handled"
        for sample in metric.samples
        if sample.name.endswith("_total") and labels.items() <= sample.labels.items()
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_answers_pass_through(kind: str, channel: grpc.aio.Channel) -> None:
    before = handled(kind, "OK")
    answers = await send(channel, kind, b"hello")
    assert answers == ([b"first", b"hello"] if kind == "ServerStream" else [b"hello"])
    assert handled(kind, "OK") == before + 1


@pytest.mark.parametrize("order", [b"not-found", b"grouped"])
@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_of_ours_arrives_whole(
    kind: str, order: bytes, channel: grpc.aio.Channel
) -> None:
    before = handled(kind, "NOT_FOUND")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await send(channel, kind, order)
    error = error_from_rpc(caught.value)
    assert (error.code, error.reason) == ("NOT_FOUND", "ECHO_NOT_FOUND")
    assert (error.message, error.field, error.retry_after) == ("木霊がない", "order", 0.5)
    assert handled(kind, "NOT_FOUND") == before + 1


@pytest.mark.parametrize("kind", KINDS)
async def test_any_other_error_is_internal_and_says_nothing(
    kind: str, channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(grpc.aio.AioRpcError) as caught:
        await send(channel, kind, b"crash")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "秘密" not in str(caught.value.details())
    assert error_from_rpc(caught.value).reason == "INTERNAL"
    assert [record.message for record in caplog.records if record.exc_info] == [
        "call failed unexpectedly"
    ]


async def test_a_stream_keeps_what_came_before_its_error(channel: grpc.aio.Channel) -> None:
    call = start(channel, "ServerStream", b"not-found")
    assert await call.read() == b"first"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert error_from_rpc(caught.value).reason == "ECHO_NOT_FOUND"


async def test_an_unknown_method_is_unimplemented(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await send(channel, "Unary/Nothing", b"x")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_nothing_stays_in_flight(channel: grpc.aio.Channel) -> None:
    await send(channel, "Unary", b"hello")
    labels = {"grpc_service": NAME, "grpc_method": "Unary"}
    assert REGISTRY.get_sample_value("ragmesh_grpc_in_flight", labels) == 0


async def test_the_caller_is_who_the_metadata_says(
    echo: EchoServicer, channel: grpc.aio.Channel
) -> None:
    caller = Caller("a" * 64, "佐藤@example.com", "req-7")
    await send(channel, "Unary", b"who", metadata=caller_metadata(caller))
    assert echo.callers == [caller]


async def test_without_a_tenant_there_is_no_caller(echo: EchoServicer) -> None:
    async with serve_for_test([(add_to_server, echo)], caller=None) as channel:
        assert await send(channel, "Unary", b"hello") == [b"hello"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(channel, "Unary", b"who")
    assert error_from_rpc(caught.value).reason == "TENANT_REQUIRED"


async def test_where_clients_call_directly_tenant_metadata_is_discarded(echo: EchoServicer) -> None:
    async with serve_for_test([(add_to_server, echo)], tenant_from_metadata=False) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(channel, "Unary", b"who")
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("tenant", ["../other", "a/b", "x" * 65, "a.b"])
async def test_a_tenant_that_is_no_folder_name_is_refused(
    tenant: str, echo: EchoServicer, channel: grpc.aio.Channel
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await send(channel, "Unary", b"who", metadata=(("x-ragmesh-tenant", tenant),))
    assert error_from_rpc(caught.value).reason == "TENANT_MALFORMED"
    assert not echo.calls


async def test_a_request_id_is_kept_or_made_and_told(echo: EchoServicer) -> None:
    async with serve_for_test([(add_to_server, echo)]) as channel:
        given = (("x-request-id", "client-1"),)
        assert await send(channel, "Unary", b"request-id", metadata=given) == [b"client-1"]
        call = start(channel, "Unary", b"request-id", metadata=(("x-request-id", "not fit"),))
        made = (await call).decode()
        assert made != "not fit"
        assert dict(await call.initial_metadata())["x-request-id"] == made


async def test_a_trace_goes_on_through_the_service(channel: grpc.aio.Channel) -> None:
    (answer,) = await send(channel, "Unary", b"trace", metadata=(("traceparent", PARENT),))
    assert answer.decode().split("-")[1] == PARENT.split("-")[1]
    assert await send(channel, "Unary", b"trace") == [b""]


async def test_metrics_have_the_standard_names(channel: grpc.aio.Channel) -> None:
    await send(channel, "ServerStream", b"hello")
    labels = {
        "grpc_type": "server_stream",
        "grpc_service": NAME,
        "grpc_method": "ServerStream",
    }
    assert REGISTRY.get_sample_value("grpc_server_started_total", labels)
    ended = {**labels, "grpc_code": "OK"}
    assert REGISTRY.get_sample_value("grpc_server_handled_total", ended)
    assert REGISTRY.get_sample_value("grpc_server_handling_seconds_count", ended)
