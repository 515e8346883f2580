"""Spans reach an OTLP collector, under the caller's trace, before the process ends."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from services.runtime.channel import connect
from services.runtime.settings import OFFSETS
from tests.service.runtime.conftest import Start
from tests.service.runtime.echo import NAME, send
from tests.service.runtime.ports import free_base

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.received: list[trace_pb2.ResourceSpans] = []
        self.address = ""

    async def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.received.extend(request.resource_spans)
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    servicer = Collector()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer, server)
    servicer.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield servicer
    await server.stop(None)


async def test_a_call_is_a_span_of_the_callers_trace(collector: Collector, start: Start) -> None:
    base = free_base("infer")
    process = start(grpc_base=str(base), otel_endpoint=collector.address)
    async with connect(f"127.0.0.1:{base + OFFSETS['infer']}") as channel:
        parent = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),)
        with pytest.raises(grpc.aio.AioRpcError):
            await send(channel, "Unary", b"crash", metadata=parent, wait_for_ready=True, timeout=15)
        (outgoing,) = await send(channel, "Unary", b"trace", metadata=parent)
    process.send_signal(signal.SIGTERM)
    _, logged = await asyncio.to_thread(process.communicate, timeout=15)

    assert collector.received, logged
    attributes = {
        pair.key: pair.value.string_value
        for spans in collector.received
        for pair in spans.resource.attributes
    }
    assert attributes["service.name"] == "ragmesh-infer"
    spans = [
        span
        for resource in collector.received
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert {span.name for span in spans} == {f"{NAME}/Unary"}
    failed, traced = sorted(spans, key=lambda span: span.start_time_unix_nano)
    assert failed.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    assert outgoing.decode().split("-")[2] == traced.span_id.hex()
    assert "秘密".encode() not in b"".join(span.SerializeToString() for span in spans)
    assert TRACE in logged
