"""What happens around every call, in one visible list: Tracing, Context, Metrics, Errors.

Each is an `async with` around the call, for all four kinds of method. A generator that streams
responses is drained here, innermost, and closed on every way out: a servicer cleans up in
``finally`` and never depends on the garbage collector.
"""

import asyncio
import inspect
import ipaddress
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc
from opentelemetry import trace

from services.runtime import context as calls
from services.runtime import metrics, traces
from services.runtime.errors import Internal, InvalidArgument, PermissionDenied, RagmeshError
from services.runtime.status import abort

log = logging.getLogger(__name__)

ServicerContext = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, ServicerContext], Awaitable[Any]]
# Generic in the stubs only, hence the quotes.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
MaybeHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"

_STATUS_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Rpc:
    """One call, as an interceptor sees it."""

    kind: str
    """unary, client_stream, server_stream or bidi_stream."""
    service: str
    method: str
    context: ServicerContext
    metadata: Mapping[str, str | bytes]

    @property
    def status(self) -> str:
        """The status so far: OK unless the call was aborted or given a code."""
        code: Any = self.context.code()
        return code.name if isinstance(code, grpc.StatusCode) else _STATUS_NAMES.get(code, "OK")

    @property
    def status_when_cancelled(self) -> str:
        remaining: float | None = self.context.time_remaining()
        return "CANCELLED" if remaining is None or remaining > 0 else "DEADLINE_EXCEEDED"


class Around(grpc.aio.ServerInterceptor):
    """An interceptor that is one context manager around the call."""

    def around(self, rpc: Rpc) -> AbstractAsyncContextManager[None]:
        raise NotImplementedError

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MaybeHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MaybeHandler:
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method; grpc answers UNIMPLEMENTED
            return None
        return _wrap(handler, handler_call_details.method, self.around)


class Tracing(Around):
    """A server span under the caller's trace."""

    @asynccontextmanager
    async def around(self, rpc: Rpc) -> AsyncIterator[None]:
        attributes = {"rpc.system": "grpc", "rpc.service": rpc.service, "rpc.method": rpc.method}
        with traces.tracer().start_as_current_span(
            f"{rpc.service}/{rpc.method}",
            context=traces.extract(rpc.metadata),
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,  # its text may quote the user
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except asyncio.CancelledError:
                _set_span_status(span, rpc.status_when_cancelled)
                raise
            except BaseException:
                _set_span_status(span, rpc.status)
                raise
            _set_span_status(span, rpc.status)


class Context(Around):
    """Who is calling, for `current_caller()`, the log and the next hop."""

    def __init__(
        self, trusted_peers: Sequence[str] = (), *, tenant_from_metadata: bool = True
    ) -> None:
        """Args:
        trusted_peers: certificate names whose tenant metadata is believed under mTLS.
        tenant_from_metadata: False where clients call directly and prove themselves otherwise:
            x-ragmesh-* metadata is then discarded.
        """
        self._trusted = frozenset(trusted_peers)
        self._tenant_from_metadata = tenant_from_metadata

    @asynccontextmanager
    async def around(self, rpc: Rpc) -> AsyncIterator[None]:
        given = rpc.metadata.get(calls.REQUEST_ID_KEY)
        request_id = given if calls.is_request_id(given) else calls.new_request_id()
        calls.set_caller(calls.Caller("", "", str(request_id)))
        try:
            caller = self._caller(rpc, str(request_id))
        except RagmeshError as error:  # Errors lies further in, so this one is ours to send
            log.warning(
                "call refused",
                extra={"method": f"{rpc.service}/{rpc.method}", "reason": error.reason},
            )
            await abort(rpc.context, error)
        calls.set_caller(caller)
        if given != request_id:  # a caller that sent one knows it; others learn it
            await rpc.context.send_initial_metadata(((calls.REQUEST_ID_KEY, str(request_id)),))
        yield

    def _caller(self, rpc: Rpc, request_id: str) -> calls.Caller:
        tenant = str(rpc.metadata.get(calls.TENANT_KEY, ""))
        subject = unquote(str(rpc.metadata.get(calls.SUBJECT_KEY, "")))
        if not self._tenant_from_metadata or not (tenant or subject):
            return calls.Caller("", "", request_id)
        if not is_trusted_peer(rpc.context, self._trusted):
            raise PermissionDenied(
                "TENANT_NOT_ACCEPTED", "This peer may not say on whose behalf it calls."
            )
        if tenant and not calls.TENANT_PATTERN.fullmatch(tenant):
            raise InvalidArgument(
                "TENANT_MALFORMED",
                "A tenant id is 1 to 64 letters, digits, '-' or '_'.",
                field=calls.TENANT_KEY,
            )
        return calls.Caller(tenant, subject, request_id)


class Metrics(Around):
    """The standard gRPC server metrics, in-flight calls and calls whose caller left."""

    @asynccontextmanager
    async def around(self, rpc: Rpc) -> AsyncIterator[None]:
        labels = (rpc.kind, rpc.service, rpc.method)
        metrics.STARTED.labels(*labels).inc()
        start = time.perf_counter()
        status = "UNKNOWN"
        with metrics.IN_FLIGHT.labels(rpc.service, rpc.method).track_inprogress():
            try:
                yield
                status = rpc.status
            except asyncio.CancelledError:
                status = rpc.status_when_cancelled
                metrics.CANCELLED.labels(rpc.service, rpc.method).inc()
                raise
            except grpc.aio.AbortError:
                status = rpc.status
                raise
            finally:
                metrics.HANDLED.labels(*labels, status).inc()
                elapsed = time.perf_counter() - start
                metrics.HANDLING_SECONDS.labels(*labels, status).observe(elapsed)


class Errors(Around):
    """RagmeshError becomes a rich status; anything else INTERNAL, without its text."""

    @asynccontextmanager
    async def around(self, rpc: Rpc) -> AsyncIterator[None]:
        method = f"{rpc.service}/{rpc.method}"
        try:
            yield
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise  # first: AbortError is an Exception in grpc.aio
        except Exception as error:
            cause = _sole_cause(error)
            if isinstance(cause, RagmeshError):
                level = logging.ERROR if cause.http_status == 500 else logging.INFO
                log.log(
                    level,
                    "call failed",
                    extra={"method": method, "code": cause.code, "reason": cause.reason},
                )
                await abort(rpc.context, cause)
            log.exception("call failed unexpectedly", extra={"method": method})
            await abort(rpc.context, Internal("INTERNAL", "The server failed."))


def server_interceptors(
    trusted_peers: Sequence[str] = (), *, tenant_from_metadata: bool = True
) -> list[grpc.aio.ServerInterceptor]:
    """The interceptor list of every server, outermost first."""
    return [
        Tracing(),
        Context(trusted_peers, tenant_from_metadata=tenant_from_metadata),
        Metrics(),
        Errors(),
    ]


def is_trusted_peer(context: ServicerContext, trusted: frozenset[str]) -> bool:
    """Whether the peer may set tenant metadata.

    Under mTLS its certificate decides, wherever it calls from; without TLS, loopback does.
    """
    identities = context.peer_identities()
    if identities is not None:
        return any(identity.decode(errors="replace") in trusted for identity in identities)
    scheme, _, address = context.peer().partition(":")
    if scheme.startswith("unix"):
        return True
    host = unquote(address).rpartition(":")[0].strip("[]")
    return ipaddress.ip_address(host).is_loopback


def _sole_cause(error: Exception) -> BaseException:
    """The error inside the groups that a TaskGroup wraps around it."""
    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
        cause = cause.exceptions[0]
    return cause


def _set_span_status(span: trace.Span, status: str) -> None:
    span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[status].value[0])
    if status != "OK":
        span.set_status(trace.StatusCode.ERROR, status)


def _wrap(
    handler: Handler,
    path: str,
    around: Callable[[Rpc], AbstractAsyncContextManager[None]],
) -> Handler:
    service, _, method = path.lstrip("/").rpartition("/")
    kind, attribute, make = _KINDS[
        bool(handler.request_streaming), bool(handler.response_streaming)
    ]
    behaviour: Behaviour = _awaitable(getattr(handler, attribute))

    async def call(request: Any, context: ServicerContext) -> Any:
        metadata = dict(context.invocation_metadata() or ())
        async with around(Rpc(kind, service, method, context, metadata)):
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
