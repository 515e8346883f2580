"""Errors on the wire: `RagmeshError` <-> ``google.rpc.Status`` with rich details."""

from typing import Any, Never, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.runtime.errors import ERRORS, SPELLINGS, RagmeshError, Unavailable, Unknown

DOMAIN = "ragmesh"
DETAILS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"

# Trailers are limited to 8 KiB and hold the message twice, once percent-encoded: a Japanese
# character takes 9 bytes there and 3 in the details.
MAX_MESSAGE_BYTES = 1200

# A service that cannot be reached is usually restarting; its supervisor needs about a second.
UNREACHABLE_RETRY_SECONDS = 1.0

SHED_CODES = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE"})


def error_to_status(error: RagmeshError) -> status_pb2.Status:
    """Pack an error: ErrorInfo always, BadRequest when a field is named, RetryInfo when timed."""
    message = _clip(error.message)
    status = status_pb2.Status(code=error.spelling.number, message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=message, reason=error.reason
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after * 1e9))
        status.details.add().Pack(retry)
    return status


def status_to_error(status: status_pb2.Status) -> RagmeshError:
    """Unpack a status that this mesh made; details of other domains are ignored."""
    code = _CODE_NAMES.get(status.code, "UNKNOWN")
    reason, field, retry_after = code, None, None
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            reason = info.reason or code
        elif detail.Unpack(bad_request) and bad_request.field_violations:
            field = bad_request.field_violations[0].field
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    return ERRORS[code](reason, status.message, field=field, retry_after=retry_after)


def error_from_rpc(rpc_error: grpc.aio.AioRpcError) -> RagmeshError:
    """The error behind a failed call.

    A status without our details comes from gRPC itself or from a foreign server. Its text can
    name hosts and sockets, so only its code is kept.
    """
    try:
        status = rpc_status.from_call(cast(grpc.Call, rpc_error))
    except (ValueError, DecodeError):
        status = None
    if status is not None and _is_ours(status):
        return status_to_error(status)
    return error_from_code(rpc_error.code())


def error_from_code(code: grpc.StatusCode) -> RagmeshError:
    """The error for a bare status code."""
    cls = ERRORS.get(code.name, Unknown)
    retry_after = UNREACHABLE_RETRY_SECONDS if cls is Unavailable else None
    return cls(cls.code, SPELLINGS[cls.code].message, retry_after=retry_after)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: RagmeshError) -> Never:
    """End the call with an error. A shed call tells the client's channel not to retry it."""
    status = error_to_status(error)
    trailers: tuple[tuple[str, str | bytes], ...] = ((DETAILS_KEY, status.SerializeToString()),)
    if error.code in SHED_CODES:
        trailers += ((PUSHBACK_KEY, "-1"),)
    await context.abort(grpc.StatusCode[error.code], status.message, trailers)


def _clip(message: str) -> str:
    encoded = message.encode()
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return message
    return encoded[:MAX_MESSAGE_BYTES].decode(errors="ignore") + "…"


def _is_ours(status: status_pb2.Status) -> bool:
    info = error_details_pb2.ErrorInfo()
    return any(detail.Unpack(info) and info.domain == DOMAIN for detail in status.details)


_CODE_NAMES = {spelling.number: code for code, spelling in SPELLINGS.items()}
