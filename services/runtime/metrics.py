"""Prometheus metrics: the standard gRPC ones, and the endpoint that shows them.

A service adds its own as module-level ``Counter``/``Histogram`` named ``ragmesh_<service>_...``;
they live in prometheus_client's process-wide registry, as every metric of a process does.
"""

import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from types import TracebackType
from typing import Self

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import choose_encoder

from services.runtime.errors import FailedPrecondition
from services.runtime.version import VERSION

STARTED = Counter(
    "grpc_server_started",
    "RPCs started on the server.",
    ["grpc_type", "grpc_service", "grpc_method"],
)
HANDLED = Counter(
    "grpc_server_handled",
    "RPCs completed on the server, by status code.",
    ["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
)
HANDLING_SECONDS = Histogram(
    "grpc_server_handling_seconds",
    "Time from the start of an RPC to its end, in seconds.",
    ["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
IN_FLIGHT = Gauge(
    "ragmesh_grpc_in_flight", "RPCs being handled now.", ["grpc_service", "grpc_method"]
)
CANCELLED = Counter(
    "ragmesh_grpc_cancelled",
    "RPCs whose caller left before the end, by disconnecting or by its deadline.",
    ["grpc_service", "grpc_method"],
)
BUILD = Info("ragmesh_build", "The running version.")


class MetricsServer:
    """``/metrics`` and ``/health`` over plain HTTP, in a thread of its own.

    ``/health`` is for probes that cannot speak mTLS (Kubernetes' gRPC probe cannot): 200 while
    the service is SERVING, 503 otherwise.
    """

    def __init__(self, host: str, port: int, service: str) -> None:
        """Bind; port 0 takes a free one.

        Raises:
            FailedPrecondition: ADDRESS_IN_USE, when the port is taken.
        """
        BUILD.info({"version": VERSION, "service": service})
        self.serving = False
        server = self

        class Handler(_Handler):
            owner = server

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            address_family = AF_INET6 if ":" in host else AF_INET

        try:
            self._http = Server((host, port), Handler)
        except OSError as error:
            raise FailedPrecondition(
                "ADDRESS_IN_USE",
                f"The metrics address {host}:{port} cannot be bound ({error.strerror}); "
                "set RAGMESH_METRICS_BASE to a free range of ports, or to 0 for no metrics.",
            ) from error
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(
            target=self._http.serve_forever, name="metrics", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    owner: MetricsServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("accept", ""))
            self._answer(HTTPStatus.OK, content_type, encode(REGISTRY))
        elif path == "/health":
            status = HTTPStatus.OK if self.owner.serving else HTTPStatus.SERVICE_UNAVAILABLE
            text = b"SERVING\n" if self.owner.serving else b"NOT_SERVING\n"
            self._answer(status, "text/plain; charset=utf-8", text)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"not found\n")

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are no news."""
