"""A server interceptor as one `async with` around the call, for all four kinds of method."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

ServicerContext = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, ServicerContext], Awaitable[Any]]
# Generic in the stubs only, hence the quotes.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
MaybeHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"

_STATUS_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}

# A caller's deadline strikes at its end first; its cancel arrives here with a little time left.
_DEADLINE_SLACK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Rpc:
    """One call, as an interceptor sees it."""

    kind: str
    """unary, client_stream, server_stream or bidi_stream."""
    service: str
    """Full name of the proto service."""
    method: str
    context: ServicerContext

    @property
    def path(self) -> str:
        return f"{self.service}/{self.method}"

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        return dict(self.context.invocation_metadata() or ())

    @property
    def status(self) -> str:
        """The status so far: OK unless the call was aborted or given a code."""
        # The stubs say StatusCode; grpc.aio answers with its number.
        code: Any = self.context.code()
        return code.name if isinstance(code, grpc.StatusCode) else _STATUS_NAMES.get(code, "OK")

    @property
    def status_when_cancelled(self) -> str:
        remaining: float | None = self.context.time_remaining()
        if remaining is None or remaining > _DEADLINE_SLACK_SECONDS:
            return "CANCELLED"
        return "DEADLINE_EXCEEDED"


class Around(grpc.aio.ServerInterceptor):
    """An interceptor that is one context manager around the call.

    A generator that streams responses is drained by the innermost interceptor and closed on every
    way out: a servicer cleans up in ``finally`` and never depends on the garbage collector.
    """

    def __init__(self) -> None:
        # Methods do not change once a server runs, and there are few. The outermost interceptor's
        # hit saves wrapping the method again in the whole chain at every call.
        self._wrapped: dict[str, Handler] = {}

    def around(self, rpc: Rpc) -> AbstractAsyncContextManager[None]:
        raise NotImplementedError

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MaybeHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MaybeHandler:
        path = handler_call_details.method
        if path not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:  # no such method; grpc answers UNIMPLEMENTED
                return None
            self._wrapped[path] = self._wrap(handler, path)
        return self._wrapped[path]

    def _wrap(self, handler: Handler, path: str) -> Handler:
        service, _, method = path.lstrip("/").rpartition("/")
        streams = (bool(handler.request_streaming), bool(handler.response_streaming))
        kind, attribute, make = _KINDS[streams]
        behaviour = _awaitable(getattr(handler, attribute))

        async def call(request: Any, context: ServicerContext) -> Any:
            async with self.around(Rpc(kind, service, method, context)):
                return await behaviour(request, context)

        return make(
            call,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _awaitable(behaviour: Callable[[Any, ServicerContext], Any]) -> Behaviour:
    """A generator of responses as a coroutine that writes them; coroutines as they are."""
    if not inspect.isasyncgenfunction(behaviour):
        return behaviour

    async def write_all(request: Any, context: ServicerContext) -> None:
        async with aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                await context.write(response)

    return write_all


_KINDS: Mapping[tuple[bool, bool], tuple[str, str, Callable[..., Handler]]] = {
    (False, False): ("unary", "unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("server_stream", "unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("client_stream", "stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("bidi_stream", "stream_stream", grpc.stream_stream_rpc_method_handler),
}
