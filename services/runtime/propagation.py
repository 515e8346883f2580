"""What every outgoing call carries: the request id and the trace, from the call being served."""

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from typing import Any

import grpc

from services.runtime.context import REQUEST_ID_KEY, current_request_id, new_request_id
from services.runtime.traces import inject

MetadataSource = Callable[[], Iterable[tuple[str, str]]]
Requests = AsyncIterable[Any] | Iterable[Any]


def outgoing_metadata() -> list[tuple[str, str]]:
    """x-request-id (made when there is none) and traceparent (when there is a trace)."""
    request_id = current_request_id() or new_request_id()
    return [(REQUEST_ID_KEY, request_id), *inject().items()]


def client_interceptors(
    source: MetadataSource = outgoing_metadata,
) -> Sequence[grpc.aio.ClientInterceptor]:
    """Interceptors that add the source's metadata to a call, where the call has not set it."""
    return [_UnaryUnary(source), _UnaryStream(source), _StreamUnary(source), _StreamStream(source)]


class _Adding:
    def __init__(self, source: MetadataSource) -> None:
        self._source = source

    def _add(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        given = set(metadata.keys())
        for key, value in self._source():
            if key not in given:
                metadata.add(key, value)
        return grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )


# grpc.aio files an interceptor under the first kind that it is an instance of: four classes.
class _UnaryUnary(_Adding, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        return await continuation(self._add(client_call_details), request)


class _UnaryStream(_Adding, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        return await continuation(self._add(client_call_details), request)


class _StreamUnary(_Adding, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Requests], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: Requests,
    ) -> Any:
        return await continuation(self._add(client_call_details), request_iterator)


class _StreamStream(_Adding, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Requests], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: Requests,
    ) -> Any:
        return await continuation(self._add(client_call_details), request_iterator)
