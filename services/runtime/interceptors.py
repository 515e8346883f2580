"""What happens around every call, in one visible list: Tracing, Context, Metrics, Errors."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import unquote

import grpc
from opentelemetry import trace

from services.runtime import metrics
from services.runtime.around import Around, Rpc
from services.runtime.context import (
    ATTRIBUTES_KEY,
    REQUEST_ID_KEY,
    SUBJECT_KEY,
    TENANT_KEY,
    TENANT_PATTERN,
    Caller,
    new_request_id,
    request_id_or_none,
    set_caller,
    unpack_attributes,
)
from services.runtime.deadlines import set_call_deadline
from services.runtime.errors import Internal, InvalidArgument, PermissionDenied, RagmeshError
from services.runtime.peers import is_trusted_peer
from services.runtime.status import abort
from services.runtime.traces import TRACER, extract

log = logging.getLogger(__name__)


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


class Tracing(Around):
    """A server span under the caller's trace."""

    @asynccontextmanager
    async def around(self, rpc: Rpc) -> AsyncIterator[None]:
        attributes = {"rpc.system": "grpc", "rpc.service": rpc.service, "rpc.method": rpc.method}
        with TRACER.start_as_current_span(
            rpc.path,
            context=extract(rpc.metadata),
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,  # its text may quote the user
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except asyncio.CancelledError:
                _finish(span, rpc.status_when_cancelled)
                raise
            except BaseException:
                _finish(span, rpc.status)
                raise
            _finish(span, rpc.status)


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
        super().__init__()
        self._trusted = frozenset(trusted_peers)
        self._tenant_from_metadata = tenant_from_metadata

    @asynccontextmanager
    async def around(self, rpc: Rpc) -> AsyncIterator[None]:
        metadata = rpc.metadata
        given = request_id_or_none(metadata.get(REQUEST_ID_KEY))
        request_id = given or new_request_id()
        set_caller(Caller("", "", request_id))
        try:
            tenant, subject, attributes = self._identity(rpc, metadata)
        except RagmeshError as error:  # Errors lies further in, so this one is ours to send
            log.warning("call refused", extra={"method": rpc.path, "reason": error.reason})
            await abort(rpc.context, error)
        set_caller(Caller(tenant, subject, request_id, attributes))
        set_call_deadline(rpc.context.time_remaining())
        if given is None:  # a caller that sent one knows it already
            await rpc.context.send_initial_metadata(((REQUEST_ID_KEY, request_id),))
        yield

    def _identity(
        self, rpc: Rpc, metadata: Mapping[str, str | bytes]
    ) -> tuple[str, str, tuple[str, ...]]:
        """Tenant, subject and attributes, empty where there are none."""
        tenant = str(metadata.get(TENANT_KEY, ""))
        subject = unquote(str(metadata.get(SUBJECT_KEY, "")))
        if not self._tenant_from_metadata or not (tenant or subject):
            return "", "", ()
        if not is_trusted_peer(rpc.context, self._trusted):
            raise PermissionDenied(
                "TENANT_NOT_ACCEPTED", "This peer may not say on whose behalf it calls."
            )
        if tenant and not TENANT_PATTERN.fullmatch(tenant):
            raise InvalidArgument(
                "TENANT_MALFORMED",
                "A tenant id is 1 to 64 letters, digits, '-' or '_'.",
                field=TENANT_KEY,
            )
        return tenant, subject, unpack_attributes(metadata.get(ATTRIBUTES_KEY))


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
        try:
            yield
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise  # first of all: in grpc.aio AbortError is an Exception
        except Exception as error:
            cause = _sole_cause(error)
            if not isinstance(cause, RagmeshError):
                log.exception("call failed unexpectedly", extra={"method": rpc.path})
                cause = Internal("INTERNAL", "The server failed.")
            else:
                level = logging.ERROR if cause.http_status == 500 else logging.INFO
                said = {"method": rpc.path, "code": cause.code, "reason": cause.reason}
                log.log(level, "call failed", extra=said)
            await abort(rpc.context, cause)


def _sole_cause(error: Exception) -> BaseException:
    """The error inside the groups that a TaskGroup wraps around it."""
    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
        cause = cause.exceptions[0]
    return cause


def _finish(span: trace.Span, status: str) -> None:
    span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[status].value[0])
    if status != "OK":
        span.set_status(trace.StatusCode.ERROR, status)
