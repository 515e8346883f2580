"""OpenTelemetry: W3C trace context in and out always, spans exported when an endpoint is set."""

from collections.abc import Callable, Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.runtime.version import VERSION

# Bounds how long a stop waits for a collector that does not answer.
EXPORT_SECONDS = 3

# Not the global propagator: that one follows OTEL_PROPAGATORS, and the mesh promises traceparent.
_propagator = TraceContextTextMapPropagator()

TRACER = trace.get_tracer("ragmesh", VERSION)
"""Forwards to the SDK once `configure_traces` has set one up; until then its spans cost little."""


def extract(metadata: Mapping[str, str | bytes]) -> Context:
    """The caller's trace context, from gRPC metadata or HTTP headers in lower case."""
    carrier = {key: value for key, value in metadata.items() if isinstance(value, str)}
    return _propagator.extract(carrier)


def inject() -> dict[str, str]:
    """``traceparent`` (and ``tracestate``) of the current span; empty when there is no trace."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier


def configure_traces(service: str, endpoint: str | None) -> Callable[[], None]:
    """Export spans to an OTLP gRPC endpoint such as ``http://127.0.0.1:4317``.

    Returns:
        A function that flushes and stops the exporter; it blocks for seconds at most.
    """
    if not endpoint:
        return lambda: None
    # ruff: disable[PLC0415]
    # Imported here: without an endpoint no process pays for the SDK.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    # ruff: enable[PLC0415]

    resource = Resource.create({"service.name": f"ragmesh-{service}", "service.version": VERSION})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS))
    )
    trace.set_tracer_provider(provider)
    return provider.shutdown
