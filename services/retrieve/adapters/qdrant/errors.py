"""What Qdrant's client raises, as our errors. No text of the server goes out."""

from collections.abc import Callable

import grpc
import httpx
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from services.runtime.errors import (
    DataLoss,
    FailedPrecondition,
    Internal,
    RagmeshError,
    Unavailable,
)

RETRY_SECONDS = 1.0


class MissingPoint(Exception):
    """A write named a point that is not there; the others of its request were written."""


def unreachable() -> RagmeshError:
    return Unavailable(
        "ENGINE_UNAVAILABLE",
        "The vector database does not answer; try again.",
        retry_after=RETRY_SECONDS,
    )


def refused() -> RagmeshError:
    return FailedPrecondition(
        "ENGINE_ACCESS_DENIED",
        "The vector database refuses the service's key; its operator must set VECTOR_API_KEY to "
        "one that may read and write.",
    )


def failed() -> RagmeshError:
    return Internal("ENGINE_FAILED", "The vector database failed.")


def lost() -> RagmeshError:
    return DataLoss(
        "COLLECTION_UNREADABLE",
        "The collection's points are gone; restore them or delete the collection and ingest again.",
    )


def busy(seconds: float = RETRY_SECONDS) -> RagmeshError:
    return Unavailable(
        "ENGINE_UNAVAILABLE",
        "The vector database is at its limits; try again later.",
        retry_after=seconds,
    )


def not_indexed() -> RagmeshError:
    return FailedPrecondition(
        "FILTER_NOT_INDEXED",
        "The vector database refuses conditions on fields that it has no index for; its operator "
        "may list the field in RAGMESH_QDRANT_INDEXED_METADATA or lift the strict mode.",
        field="filter",
    )


Cause = Callable[[], RagmeshError]

BY_CODE: dict[grpc.StatusCode, Cause] = {
    grpc.StatusCode.OK: failed,
    grpc.StatusCode.CANCELLED: unreachable,
    grpc.StatusCode.UNKNOWN: failed,
    grpc.StatusCode.INVALID_ARGUMENT: failed,
    grpc.StatusCode.DEADLINE_EXCEEDED: unreachable,
    grpc.StatusCode.NOT_FOUND: lost,
    grpc.StatusCode.ALREADY_EXISTS: failed,
    grpc.StatusCode.PERMISSION_DENIED: refused,
    grpc.StatusCode.RESOURCE_EXHAUSTED: busy,
    grpc.StatusCode.FAILED_PRECONDITION: failed,
    grpc.StatusCode.ABORTED: busy,
    grpc.StatusCode.OUT_OF_RANGE: failed,
    grpc.StatusCode.UNIMPLEMENTED: failed,
    grpc.StatusCode.INTERNAL: failed,
    grpc.StatusCode.UNAVAILABLE: unreachable,
    grpc.StatusCode.DATA_LOSS: failed,
    grpc.StatusCode.UNAUTHENTICATED: refused,
}
BY_STATUS: dict[int, Cause] = {
    401: refused, 403: refused, 404: lost, 408: unreachable, 429: busy, 502: unreachable,
    503: unreachable, 504: unreachable, 507: busy,
}  # fmt: skip
_UNINDEXED = "index required but not found"
_MISSING_POINT = "no point with id"
_EXISTS = "already exists"


def translated(error: Exception) -> Exception:
    """Our error for one of the client's; any other is given back as it is."""
    if isinstance(error, grpc.aio.AioRpcError):
        return _read(error.details() or "") or BY_CODE[error.code()]()
    if isinstance(error, UnexpectedResponse):
        text = error.content.decode("utf-8", "replace")
        return _read(text) or BY_STATUS.get(error.status_code or 0, failed)()
    if isinstance(error, ResourceExhaustedResponse):
        return busy(float(error.retry_after_s))
    if isinstance(error, ResponseHandlingException):
        return unreachable() if isinstance(error.source, httpx.TransportError) else failed()
    return error


def _read(text: str) -> Exception | None:
    """What only the server's message tells."""
    lowered = text.lower()
    if _UNINDEXED in lowered:
        return not_indexed()
    return MissingPoint() if _MISSING_POINT in lowered else None


def says_exists(raised: Exception) -> bool:
    """Whether a creation failed because somebody else was quicker."""
    error = raised.__cause__ or raised
    if isinstance(error, grpc.aio.AioRpcError):
        told = error.details() or ""
        return error.code() == grpc.StatusCode.ALREADY_EXISTS or _EXISTS in told.lower()
    if isinstance(error, UnexpectedResponse):
        told = error.content.decode("utf-8", "replace")
        return error.status_code == 409 or _EXISTS in told.lower()
    return isinstance(error, ValueError) and _EXISTS in str(error)
